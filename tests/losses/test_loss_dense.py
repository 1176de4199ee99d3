"""Dense losses against loops over images, pixels and channels."""

import itertools

import pytest
import torch

from limbeck.losses import cwd, ifvd, pair_wise, pixel_wise

VALID = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]], [[False, False], [False, False]]])
"""Three images at half the maps' size; the last has no valid pixel."""


def kl(target, p):
    return (target * (target.log() - p.log())).sum()


def places(mask):
    return [(y, x) for y, x in itertools.product(range(4), range(4)) if mask is None or mask[y // 2, x // 2]]


@pytest.mark.parametrize("valid", [None, VALID])
@pytest.mark.parametrize(("reduction", "factor"), [("batchsum", 3), ("mean", 1), ("elements", 1 / 5)])
def test_pixel_wise(agree, draw, valid, reduction, factor):
    def plain(student, teacher):
        found = [kl((teacher[n, :, y, x] / 2).softmax(0), (student[n, :, y, x] / 2).softmax(0))
                 for n in range(3) for y, x in places(None if valid is None else valid[n])]
        return 4 * factor * sum(found) / len(found)

    agree(lambda s, t: pixel_wise(s, t, temperature=2.0, valid=valid, reduction=reduction), plain, draw(3, 5, 4, 4),
          draw(3, 5, 4, 4), learn=(0, 1))


@pytest.mark.parametrize("valid", [None, VALID])
def test_cwd(agree, draw, valid):
    def plain(student, teacher):
        total = 0.0
        for n, c in itertools.product(range(3), range(5)):
            seen = places(None if valid is None else valid[n])
            if seen:
                s, t = (torch.stack([side[n, c, y, x] for y, x in seen]) / 3 for side in (student, teacher))
                total = total + 9 * kl(t.softmax(0), s.softmax(0)) / 15
        return total

    agree(lambda s, t: cwd(s, t, temperature=3.0, valid=valid), plain, draw(3, 5, 4, 4), draw(3, 5, 4, 4), learn=(0, 1))


@pytest.mark.parametrize("loss", [pixel_wise, cwd])
def test_invalid_pixels_feel_nothing_and_none_valid_is_zero(loss, draw):
    student, teacher = draw(3, 5, 4, 4).requires_grad_(), draw(3, 5, 4, 4)
    value = loss(student, teacher, valid=VALID)
    (gradient,) = torch.autograd.grad(value, student)
    at_size = VALID.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (gradient.abs().sum(1)[~at_size] == 0).all()
    assert (gradient.abs().sum(1)[at_size] > 0).all()
    assert loss(student, teacher, valid=torch.zeros_like(VALID)) == 0


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize(("student", "teacher", "patches"), [
    ((2, 3, 6, 6), (2, 4, 6, 6), [(0, 3), (3, 6)]),
    ((2, 3, 5, 5), (2, 4, 5, 5), [(0, 2), (2, 4), (4, 5)]),
])
def test_pair_wise(agree, draw, pool, student, teacher, patches):
    def nodes(image):
        cells = [image[:, a:b, c:d].flatten(1) for (a, b), (c, d) in itertools.product(patches, patches)]
        pooled = [cell.amax(1) if pool == "max" else cell.mean(1) for cell in cells]
        return [f / (f * f).sum().sqrt().detach() for f in pooled]

    def plain(s, t):
        total = 0.0
        for n in range(2):
            a, b = nodes(s[n]), nodes(t[n])
            pairs = list(itertools.product(range(len(a)), repeat=2))
            total = total + sum((a[i] @ a[j] - b[i] @ b[j]) ** 2 for i, j in pairs) / len(pairs) / 2
        return total

    agree(lambda s, t: pair_wise(s, t, pool=pool), plain, draw(*student), draw(*teacher), learn=(0, 1))


def test_pair_wise_makes_nine_patches_of_the_authors_map(draw):
    student = draw(1, 2, 65, 65)
    one = student.clone()
    one[..., 64, 64] = draw(1, 2)  # the last row and column are patches of their own
    assert pair_wise(one, student) > 0
    flat = torch.ones(1, 2, 65, 65, dtype=torch.float64)
    turned = flat.clone()
    turned[0, 0, 64, 64] = -1  # <f_i, f_j> becomes 0 between this patch and the other eight
    torch.testing.assert_close(pair_wise(turned, flat), torch.tensor(16 / 81, dtype=torch.float64))


LABELS = torch.tensor([[[0, 0, 1, 255], [0, 2, 2, 255], [1, 1, 1, 2], [-1, 0, 0, 0]],
                       [[255, 255, 255, 255], [255, 1, 1, 255], [255, 1, 0, 255], [255, 255, 255, 255]]])


@pytest.mark.parametrize("over", ["all", "labelled"])
def test_ifvd(agree, draw, over):
    def cosines(image, labels):
        found = {}
        for y, x in itertools.product(range(4), range(4)):
            same = [image[:, i, j] for i, j in itertools.product(range(4), range(4)) if labels[i, j] == labels[y, x]]
            prototype = sum(same) / len(same)
            if 0 <= labels[y, x] < 3:
                f = image[:, y, x]
                found[y, x] = (f @ prototype) / ((f @ f) * (prototype @ prototype)).sqrt()
        return found

    def plain(s, t):
        gaps = []
        for n in range(2):
            m_s, m_t = cosines(s[n], LABELS[n]), cosines(t[n], LABELS[n])
            gaps += [(m_s[place] - m_t[place]) ** 2 for place in m_s]
        return sum(gaps) / (32 if over == "all" else len(gaps))

    agree(lambda s, t: ifvd(s, t, LABELS, classes=3, over=over), plain, draw(2, 4, 4, 4), draw(2, 3, 4, 4),
          learn=(0, 1))


def test_ifvd_takes_the_nearest_label_and_pools_the_larger_map(draw):
    student, teacher = draw(2, 4, 4, 4), draw(2, 3, 8, 8)
    fine = LABELS.repeat_interleave(3, 1).repeat_interleave(3, 2)
    by_hand = torch.nn.functional.avg_pool2d(teacher, 2)
    torch.testing.assert_close(ifvd(student, teacher, fine, classes=3), ifvd(student, by_hand, LABELS, classes=3))


def test_ifvd_without_a_labelled_pixel_is_zero(draw):
    nothing = torch.full((2, 4, 4), 255)
    for over in ("all", "labelled"):
        assert ifvd(draw(2, 4, 4, 4), draw(2, 4, 4, 4), nothing, classes=3, over=over) == 0
