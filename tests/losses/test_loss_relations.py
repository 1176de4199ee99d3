"""Losses of a batch's relations, and the contrastive one, against loops over pairs and triples."""

import itertools
import math

import pytest
import torch

from limbeck.losses import correlation_congruence, crd, pkt, rkd_angle, rkd_distance, similarity_preserving


def huber(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def length(x):
    return (x * x).sum().sqrt()


def flat(*sides):
    return [[row.flatten() for row in side] for side in sides]


def test_similarity_preserving(agree, draw):
    def plain(student, teacher):
        total = 0.0
        s, t = flat(student, teacher)
        for i in range(4):
            g_s, g_t = torch.stack([s[i] @ x for x in s]), torch.stack([t[i] @ x for x in t])
            total = total + ((g_s / length(g_s) - g_t / length(g_t)) ** 2).sum() / 16
        return total

    agree(similarity_preserving, plain, draw(4, 3, 2, 2), draw(4, 5, 3, 3), learn=(0, 1))


def test_rkd_distance(agree, draw):
    def plain(student, teacher):
        pairs = list(itertools.permutations(range(6), 2))
        sides = []
        for rows in flat(student, teacher):
            d = {(i, j): length(rows[i] - rows[j]) for i, j in pairs}
            mean = sum(d.values()) / len(d)
            sides.append({pair: x / mean for pair, x in d.items()})
        gaps = [sides[0][pair] - sides[1][pair] for pair in pairs]
        assert max(gaps) > 1  # so that both halves of the loss are compared
        return sum(huber(gap) for gap in gaps) / 36

    outlier = torch.tensor([20.0, 1, 1, 1, 1, 1])[:, None]
    agree(rkd_distance, plain, outlier * draw(6, 6), draw(6, 3, 2, 2), learn=(0, 1))


def test_rkd_angle(agree, draw):
    def plain(student, teacher):
        sides = []
        for rows in flat(student, teacher):
            u = {(i, j): (rows[j] - rows[i]) / length(rows[j] - rows[i])
                 for i, j in itertools.permutations(range(4), 2)}
            sides.append({(i, j, k): u[i, j] @ u[i, k] for i, j, k in itertools.product(range(4), repeat=3)
                          if i not in (j, k)})
        gaps = [sides[0][triple] - sides[1][triple] for triple in sides[0]]
        assert max(gaps) > 1  # so that both halves of the loss are compared
        return sum(huber(gap) for gap in gaps) / 64

    agree(rkd_angle, plain, draw(4, 2), draw(4, 3, 1, 1), learn=(0, 1))


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle, pkt, similarity_preserving])
def test_two_equal_samples_do_not_blow_the_gradient_up(loss, draw):
    apart = draw(5, 8).float()
    equal = apart.clone()
    equal[1] = equal[0]
    teacher, lengths = draw(5, 8).float(), []
    for rows in (apart, equal):
        student = rows.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(student, teacher), student)
        lengths.append(length(gradient).item())
    assert 0 < lengths[1] < 3 * lengths[0]


def test_pkt(agree, draw):
    def plain(student, teacher):
        sides = []
        for rows in flat(student, teacher):
            close = [[(1 + (a @ b) / length(a) / length(b)) / 2 for b in rows] for a in rows]
            sides.append([[x / sum(row) for x in row] for row in close])
        return sum(t * ((t + 1e-7) / (s + 1e-7)).log() for s, t in
                   zip(itertools.chain(*sides[0]), itertools.chain(*sides[1]), strict=True)) / 16

    agree(pkt, plain, draw(4, 6), draw(4, 3, 2, 2), learn=(0, 1))


def test_correlation_congruence_of_neighbours(agree, draw):
    def plain(s, t):
        pairs = [(i, i + 1) for i in range(3)]
        return sum(abs(s[i, d] - t[i, d]) * abs(s[j, d] - t[j, d]) for i, j in pairs for d in range(6)) / 3

    agree(correlation_congruence, plain, draw(4, 6), draw(4, 6), learn=(0, 1))


@pytest.mark.parametrize("mode", ["gaussian", "bilinear"])
def test_correlation_congruence_of_kernels(agree, draw, mode):
    def kernel(a, b):
        x = 0.6 * (a @ b)
        return a @ b if mode == "bilinear" else math.exp(-0.6) * (1 + x + x**2 / 2 + x**3 / 6)

    def plain(student, teacher):
        pairs = itertools.product(range(4), repeat=2)
        return sum((kernel(student[i], student[j]) - kernel(teacher[i], teacher[j])) ** 2 for i, j in pairs).sqrt() / 16

    agree(lambda s, t: correlation_congruence(s, t, mode=mode, gamma=0.3, order=3), plain, draw(4, 6), draw(4, 5),
          learn=(0, 1))


def test_the_gaussian_kernel_of_long_order_is_gauss_s(draw):
    s, t = (torch.nn.functional.normalize(draw(4, 6)) for _ in range(2))
    gauss = [torch.exp(-0.4 * torch.cdist(e, e) ** 2) for e in (s, t)]
    torch.testing.assert_close(correlation_congruence(s, t, mode="gaussian", order=20),
                               (gauss[0] - gauss[1]).norm() / 16)


def test_crd(agree, draw):
    def plain(positive, negative):
        c = 5 / 40
        total = 0.0
        for s, others in zip(positive, negative, strict=True):
            total = total - (s / (s + c + 1e-7)).log() - sum((c / (k + c + 1e-7)).log() for k in others)
        return total / 3

    agree(lambda p, n: crd(p, n, samples=40), plain, draw(3).exp(), draw(3, 5).exp(), learn=(0, 1))


def test_crd_falls_as_the_pair_scores_higher_and_the_others_lower():
    positive, negative = torch.tensor([0.2], requires_grad=True), torch.full((1, 4), 0.1, requires_grad=True)
    up, down = torch.autograd.grad(crd(positive, negative, samples=50), [positive, negative])
    assert up < 0
    assert (down > 0).all()


@pytest.mark.parametrize("loss", [similarity_preserving, rkd_distance, rkd_angle, pkt, correlation_congruence])
def test_a_batch_of_one_has_no_relations(loss, draw):
    student = draw(1, 6).requires_grad_()
    value = loss(student, draw(1, 6))
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(value, torch.zeros_like(value))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
