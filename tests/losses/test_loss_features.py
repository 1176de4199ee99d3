"""Losses of features against sums over entries, written from the formulas."""

import pytest
import torch
from torch import Tensor

from limbeck.losses import (
    activation_boundary,
    attention_map,
    attention_transfer,
    factor_transfer,
    frobenius,
    hcl,
    hint,
    nst,
    ofd,
    ofd_margin,
    unit_mse,
    vid,
    weighted_attention,
    weighted_hint,
)
from limbeck.losses.sizes import average_pool

SIZES = [((3, 4, 6, 6), (3, 4, 6, 6)), ((3, 4, 6, 6), (3, 4, 3, 3)), ((3, 4, 3, 2), (3, 4, 5, 4))]


def pooled(x: Tensor, rows: int, columns: int) -> Tensor:
    """Means over cells that begin at floor(i H / rows) and end at ceil((i + 1) H / rows)."""
    height, width = x.shape[-2:]
    rows_of = [slice(i * height // rows, -(-(i + 1) * height // rows)) for i in range(rows)]
    columns_of = [slice(j * width // columns, -(-(j + 1) * width // columns)) for j in range(columns)]
    cells = [x[..., r, c] for r in rows_of for c in columns_of]
    return torch.stack([cell.mean((-1, -2)) for cell in cells], -1).unflatten(-1, (rows, columns))


def one_size(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    size = min(s.shape[-2], t.shape[-2]), min(s.shape[-1], t.shape[-1])
    return pooled(s, *size), pooled(t, *size)


def length_one(x: Tensor) -> Tensor:
    return x / sum(entry**2 for entry in x.flatten()).sqrt()


def attention(x: Tensor, power: float = 2.0) -> Tensor:
    return sum(channel.abs() ** power for channel in x) / len(x)


def mean_of(samples) -> Tensor:
    samples = list(samples)
    return sum(samples) / len(samples)


def test_hint_and_frobenius(agree, draw):
    agree(hint, lambda s, t: sum((a - b) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)) / 24,
          draw(2, 3, 4), draw(2, 3, 4), learn=(0, 1))
    agree(frobenius, lambda s, t: sum((a - b) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)).sqrt(),
          draw(2, 3, 4), draw(2, 3, 4), learn=(0, 1))


def test_weighted_hint(agree, draw):
    agree(weighted_hint, lambda s, t, a: mean_of(w * ((x - y) ** 2).mean() for w, x, y in zip(a, s, t, strict=True)),
          draw(3, 4, 2, 2), draw(3, 4, 2, 2), draw(3).abs(), learn=(0, 1, 2))


@pytest.mark.parametrize(("shape", "weights"), [
    ((2, 3, 8, 8), {4: 1 / 2, 2: 1 / 4, 1: 1 / 8}),
    ((2, 3, 7, 7), {4: 1 / 2, 2: 1 / 4, 1: 1 / 8}),
    ((2, 3, 4, 4), {2: 1 / 2, 1: 1 / 4}),
    ((2, 3, 4, 8), {2: 1 / 2, 1: 1 / 4}),
    ((2, 3, 8, 3), {4: 1 / 2, 2: 1 / 4, 1: 1 / 8}),
    ((2, 3, 2, 2), {1: 1 / 2}),
    ((2, 3, 1, 6), {}),
    ((2, 3), {}),
])
def test_hcl(agree, draw, shape, weights):
    def plain(s, t):
        total = ((s - t) ** 2).mean()
        for level, weight in weights.items():
            total = total + weight * ((pooled(s, level, level) - pooled(t, level, level)) ** 2).mean()
        return total / (1 + sum(weights.values()))

    agree(hcl, plain, draw(*shape), draw(*shape), learn=(0, 1))


@pytest.mark.parametrize("size", [(4, 4), (2, 3), (1, 1), (7, 5), (9, 8)])
def test_maps_are_pooled_as_torch_s_adaptive_pooling_pools_them(agree, draw, size):
    weights = draw(2, 3, *size)
    agree(lambda x, w: (average_pool(x, size) * w).sum(),
          lambda x, w: (torch.nn.functional.adaptive_avg_pool2d(x, size) * w).sum(), draw(2, 3, 7, 5), weights)


def test_hcl_of_a_constant_difference_is_its_square_at_any_size():
    for side in (1, 2, 4, 7, 8, 14, 32):
        s = torch.full((1, 2, side, side), 5.0)
        torch.testing.assert_close(hcl(s, s - 3), torch.tensor(9.0))


def test_hcl_takes_other_levels(agree, draw):
    def plain(s, t):
        return (((s - t) ** 2).mean() + 0.5 * ((pooled(s, 3, 3) - pooled(t, 3, 3)) ** 2).mean()) / 1.5

    agree(lambda s, t: hcl(s, t, levels=(3,)), plain, draw(2, 3, 6, 6), draw(2, 3, 6, 6))


@pytest.mark.parametrize(("student", "teacher"), SIZES)
def test_vid(agree, draw, student, teacher):
    def plain(mean, target, variance):
        mean, target = one_size(mean, target)
        density = torch.distributions.Normal(mean, variance.sqrt()[:, None, None])
        return -density.log_prob(target).mean() - 0.5 * torch.tensor(2 * torch.pi, dtype=mean.dtype).log()

    agree(vid, plain, draw(*student), draw(*teacher), draw(4).exp(), learn=(0, 1, 2))


@pytest.mark.parametrize(("student", "teacher"), [((2, 3, 4, 4), (2, 2, 4, 4)), ((2, 2, 2, 2), (2, 3, 4, 4))])
def test_nst(agree, draw, student, teacher):
    def kernel(a, b):
        return mean_of((length_one(u) * length_one(v)).sum() ** 2 for u in a for v in b)

    def plain(s, t):
        pairs = zip(*one_size(s, t), strict=True)
        return mean_of(kernel(b, b).detach() + kernel(a, a) - 2 * kernel(a, b) for a, b in pairs)

    agree(nst, plain, draw(*student), draw(*teacher), learn=(0, 1))


def test_attention_map(agree, draw):
    agree(lambda x, w: (attention_map(x, power=3.0) * w).sum(),
          lambda x, w: sum((attention(sample, 3.0) * v).sum() for sample, v in zip(x, w, strict=True)),
          draw(2, 3, 4, 4), draw(2, 4, 4))


def test_unit_mse(agree, draw):
    def plain(s, t):
        return mean_of(((length_one(a) - length_one(b)) ** 2).mean() for a, b in zip(s, t, strict=True))

    agree(unit_mse, plain, draw(3, 4, 2, 2), draw(3, 4, 2, 2), learn=(0, 1))
    agree(unit_mse, plain, draw(3, 8), draw(3, 8), learn=(0, 1))


@pytest.mark.parametrize(("student", "teacher"), SIZES)
@pytest.mark.parametrize("mode", ["code", "paper"])
def test_attention_transfer(agree, draw, student, teacher, mode):
    def plain(s, t):
        gaps = [length_one(attention(a)) - length_one(attention(b)) for a, b in zip(*one_size(s, t), strict=True)]
        return mean_of((gap**2).mean() if mode == "code" else (gap**2).sum().sqrt() for gap in gaps)

    agree(lambda s, t: attention_transfer(s, t, mode=mode), plain, draw(*student), draw(*teacher), learn=(0, 1))


@pytest.mark.parametrize(("student", "teacher"), SIZES)
def test_weighted_attention(agree, draw, student, teacher):
    def plain(s, t, weights):
        total = 0.0
        for a, b, w in zip(s, t, weights, strict=True):
            gap = length_one(pooled(attention(a), *b.shape[1:])) - length_one(attention(b))
            total = total + w * (gap**2).mean() / len(s)
        return total

    agree(weighted_attention, plain, draw(*student), draw(*teacher), draw(3).abs(), learn=(0, 1, 2))


@pytest.mark.parametrize(("student", "teacher"), SIZES)
@pytest.mark.parametrize("mode", ["paper", "repdistiller"])
def test_factor_transfer(agree, draw, student, teacher, mode):
    def plain(s, t):
        read = attention if mode == "repdistiller" else torch.clone
        pairs = zip(*one_size(s, t), strict=True)
        return mean_of((length_one(read(a)) - length_one(read(b))).abs().mean() for a, b in pairs)

    agree(lambda s, t: factor_transfer(s, t, mode=mode), plain, draw(*student), draw(*teacher), learn=(0, 1))


def test_activation_boundary(agree, draw):
    def plain(student, teacher):
        total = 0.0
        for s, t in zip(student.flatten(), teacher.flatten(), strict=True):
            if t <= 0 and s > -0.5:
                total = total + (s + 0.5) ** 2
            if t > 0 and s <= 0.5:
                total = total + (s - 0.5) ** 2
        return total / 2

    agree(lambda s, t: activation_boundary(s, t, margin=0.5), plain, draw(2, 3, 4, 4), draw(2, 3, 4, 4))


def test_activation_boundary_is_zero_beyond_the_margin_on_the_right_side(draw):
    teacher = draw(2, 3, 4, 4)
    assert activation_boundary(1.001 * teacher.sign(), teacher) == 0
    assert activation_boundary(0.999 * teacher.sign(), teacher) > 0


@pytest.mark.parametrize(("student", "teacher"), SIZES)
def test_ofd(agree, draw, student, teacher):
    def plain(s, t, margin):
        s, t = one_size(s, t)
        total = 0.0
        for n, c, y, x in torch.cartesian_prod(*map(torch.arange, s.shape)).tolist():
            a, b = s[n, c, y, x], torch.maximum(t[n, c, y, x], margin[c])
            total = total + ((a - b) ** 2 if a > b or b > 0 else 0.0)
        return total / len(s)

    agree(ofd, plain, draw(*student), draw(*teacher), -draw(4).abs(), learn=(0, 1))


def test_ofd_margin_is_the_mean_of_a_normal_variable_s_negative_values():
    weight, bias = torch.tensor([1.5, -0.7, 2.0, 0.1]), torch.tensor([0.5, -0.3, 0.0, -3.0])
    for w, b, margin in zip(weight, bias, ofd_margin(weight, bias), strict=True):
        x = torch.linspace(-40, 0, 400_001, dtype=torch.float64)
        density = (-((x - b) / w) ** 2 / 2).exp()
        torch.testing.assert_close(margin.double(), (x * density).sum() / density.sum(), atol=1e-3, rtol=0)


def test_ofd_margin_falls_back_where_negative_values_are_rare_or_impossible():
    weight, bias = torch.tensor([1.0, -2.0, 0.0, 0.0, 0.0]), torch.tensor([10.0, 20.0, 1.0, -1.0, 0.0])
    torch.testing.assert_close(ofd_margin(weight, bias), torch.tensor([-3.0, -6.0, 0.0, -1.0, 0.0]))
