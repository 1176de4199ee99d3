"""Losses of pairs of layers against sums over entries and torch's own singular values."""

import pytest
import torch
from torch import Tensor

from limbeck.losses import fsp, kdsvd, lipschitz

EARLIER, LATER = (2, 4, 6, 6), (2, 5, 3, 3)


def halved(x: Tensor, how) -> Tensor:
    cells = [[how(x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].flatten(1)) for j in range(3)] for i in range(3)]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def flow(earlier: Tensor, later: Tensor, how=lambda x: x.mean(1)) -> Tensor:
    """G of one sample, entry by entry."""
    a = halved(earlier, how)
    return torch.stack([torch.stack([(u * v).sum() / 9 for v in later]) for u in a])


@pytest.mark.parametrize("mode", ["repdistiller", "torchdistill"])
def test_fsp(agree, draw, mode):
    def plain(s_a, s_b, t_a, t_b):
        total = 0.0
        for n in range(2):
            if mode == "repdistiller":
                total = total + ((flow(s_a[n], s_b[n]) - flow(t_a[n], t_b[n])) ** 2).mean() / 2
            else:
                gap = flow(s_a[n], s_b[n], lambda x: x.amax(1)) - flow(t_a[n], t_b[n], lambda x: x.amax(1))
                total = total + sum((gap[:, j] ** 2).sum().sqrt() for j in range(5)) / 2
        return total

    agree(lambda a, b, c, d: fsp((a, b), (c, d), mode=mode), plain, draw(*EARLIER), draw(*LATER), draw(*EARLIER),
          draw(*LATER), learn=(0, 1, 2, 3))


def test_lipschitz(agree, draw):
    def stretch(earlier, later):
        matrix = flow(earlier, later)
        v = torch.ones(4, 1, dtype=matrix.dtype)
        for _ in range(10):
            v = matrix @ (matrix.T @ v)
            length = (v**2).sum().sqrt()
            v = v / length
        return length.sqrt()

    def plain(s_a, s_b, t_a, t_b):
        return sum((stretch(s_a[n], s_b[n]) - stretch(t_a[n], t_b[n])) ** 2 for n in range(2)) / 2

    agree(lambda a, b, c, d: lipschitz((a, b), (c, d)), plain, draw(*EARLIER), draw(*LATER), draw(*EARLIER),
          draw(*LATER), learn=(0, 1, 2, 3))


def test_lipschitz_comes_to_the_largest_singular_value(draw):
    earlier, later, silent = draw(*EARLIER), draw(*LATER), torch.zeros(LATER, dtype=torch.float64)
    largest = torch.stack([torch.linalg.svdvals(flow(a, b))[0] for a, b in zip(earlier, later, strict=True)])
    torch.testing.assert_close(lipschitz((earlier, later), (earlier, silent), iterations=300), (largest**2).mean(),
                               rtol=1e-4, atol=0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("mode", "shapes"), [
    ("repdistiller", ((2, 4, 6, 6), (2, 5, 3, 3), (2, 4, 5, 5), (2, 5, 3, 3))),
    ("mdistiller", ((2, 4, 6, 6), (2, 5, 3, 3), (2, 2, 6, 6), (2, 3, 4, 3))),
])
def test_kdsvd(agree, draw, mode, shapes, count):
    def decomposed(x):
        matrix = x.flatten(1).T if mode == "repdistiller" else x.reshape(-1, x.shape[-1])
        _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
        return values, list(rows)

    def directions(s, t):
        values, v_t = decomposed(t)
        v_t = [v if v.sum() >= 0 else -v for v in v_t[:count]]
        v_s = decomposed(s)[1][:count + 3]
        chosen = [max(v_s, key=lambda v, target=target: abs((v @ target).item())) for target in v_t]
        turned = [v * (v @ target).sign().detach() for v, target in zip(chosen, v_t, strict=True)]
        scale = values[:count] / (values[:count] ** 2).sum().sqrt()
        return [v * k for v, k in zip(turned, scale, strict=True)], [v * k for v, k in zip(v_t, scale, strict=True)]

    def plain(s_a, s_b, t_a, t_b):
        total = 0.0
        for n in range(2):
            (a_s, a_t), (b_s, b_t) = directions(s_a[n], t_a[n]), directions(s_b[n], t_b[n])
            for k in range(count):
                h_s = torch.exp(-((b_s[k][None] - a_s[k][:, None]) ** 2) / 8)
                h_t = torch.exp(-((b_t[k][None] - a_t[k][:, None]) ** 2) / 8)
                total = total + ((h_s - h_t) ** 2).sum() / 2
        return total

    # A direction common to all entries keeps the singular values apart, as a ReLU does in a network.
    agree(lambda a, b, c, d: kdsvd((a, b), (c, d), mode=mode, count=count), plain, *(1 + draw(*x) for x in shapes),
          learn=(0, 1))


def test_kdsvd_moves_a_student_to_its_teacher_s_directions(draw):
    teacher = 1 + draw(2, 4, 6, 6), 1 + draw(2, 5, 3, 3)
    student = [(x + 0.3 * draw(*x.shape)).requires_grad_() for x in teacher]
    before = kdsvd(tuple(student), teacher)
    gradients = torch.autograd.grad(before, student)
    moved = tuple(x - 0.1 * g / torch.linalg.vector_norm(g) for x, g in zip(student, gradients, strict=True))
    assert kdsvd(moved, teacher) < before
