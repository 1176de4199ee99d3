"""What every loss promises, a row each: what it is at equality, what leaves it alone, and that it stays finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import limbeck.losses as L

N = 6
LOGITS, VECTORS, MAPS, SMALLER = (N, 5), (N, 10), (N, 4, 8, 8), (N, 4, 4, 4)
LAYERS = ((N, 4, 8, 8), (N, 3, 4, 4))
LABELS = torch.tensor([0, 3, 2, 2, 1, 4])
LABEL_MAPS = torch.arange(N * 64).view(N, 8, 8) % 7 - 1
MASK = LABEL_MAPS > 0

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "shifted rows": lambda x: x + torch.arange(1.0, len(x) + 1)[:, None] * 10,
    "scaled samples": lambda x: x * torch.arange(1.0, len(x) + 1).view(-1, *[1] * (x.ndim - 1)),
    "scaled": lambda x: x * 7,
    "shifted": lambda x: x + torch.arange(1.0, x.shape[1] + 1),
    "turned": lambda x: x @ torch.linalg.qr(torch.arange(100.0).view(10, 10).cos().double())[0],
    "shifted pixels": lambda x: x + torch.arange(64.0).view(8, 8),
    "shifted channels": lambda x: x + torch.arange(1.0, len(x[0]) + 1)[:, None, None],
    "scaled channels": lambda x: x * torch.arange(1.0, len(x[0]) + 1)[:, None, None],
    "exchanged channels": lambda x: x.flip(1),
    "negated": lambda x: -x,
}


@dataclass(frozen=True)
class Row:
    """A loss and what it promises.

    Attributes:
        name: For the report.
        loss: Called with as many tensors as there are shapes, then the extras.
        shapes: Of the side that learns, then of the other side; a layer's pair counts as two of each.
        extras: Further tensors; those of N rows are repeated with the batch.
        equal: What the loss is, at most, where both sides are equal; None: it says nothing there.
        least: The least that it can be; None: it has no bound.
        repeated: By how much it grows when the batch comes twice; None: no simple factor.
        alone: Changes of the learning side that leave it alone.
    """

    name: str
    loss: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    extras: tuple[Tensor, ...] = ()
    equal: float | None = 1e-12
    least: float | None = 0.0
    repeated: float | None = 1.0
    alone: tuple[str, ...] = ()

    def inputs(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in self.shapes]

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.loss(*inputs, *(x.to(inputs[0]) if x.is_floating_point() else x for x in self.extras))


def layered(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda a, b, c, d: loss((a, b), (c, d))


def weights(n: int) -> Tensor:
    return torch.linspace(0.2, 1.0, n)


ROWS = [
    Row("soft_kl", L.soft_kl, (LOGITS, LOGITS), alone=("shifted rows",)),
    Row("soft_kl/mean", partial(L.soft_kl, reduction="mean"), (LOGITS, LOGITS), alone=("shifted rows",)),
    Row("soft_cross_entropy", L.soft_cross_entropy, (LOGITS, LOGITS), equal=None, alone=("shifted rows",)),
    Row("hard_ce", L.hard_ce, (LOGITS, LOGITS), equal=None, alone=("shifted rows",)),
    Row("standardised_kl", L.standardised_kl, (LOGITS, LOGITS), alone=("shifted rows",)),
    Row("target_kl", L.target_kl, (LOGITS, LOGITS), (LABELS,), alone=("shifted rows",)),
    Row("nontarget_kl", L.nontarget_kl, (LOGITS, LOGITS), (LABELS,), alone=("shifted rows",)),
    Row("dkd", L.dkd, (LOGITS, LOGITS), (LABELS,), alone=("shifted rows",)),
    Row("dist", L.dist, (LOGITS, LOGITS), equal=1e-6, alone=("shifted rows",)),
    Row("class_correlation", L.class_correlation, (LOGITS, LOGITS), repeated=4.0, alone=("shifted rows",)),
    Row("batch_correlation", L.batch_correlation, (LOGITS, LOGITS), repeated=2.0, alone=("shifted rows",)),
    Row("dirichlet_nll", L.dirichlet_nll, (LOGITS, (N, 3, 5)), equal=None, least=None),
    Row("hint", L.hint, (MAPS, MAPS)),
    Row("weighted_hint", L.weighted_hint, (MAPS, MAPS), (weights(N),)),
    Row("frobenius", L.frobenius, (VECTORS, VECTORS), repeated=2**0.5),
    Row("hcl", L.hcl, (MAPS, MAPS)),
    Row("hcl/vectors", L.hcl, (VECTORS, VECTORS)),
    Row("vid", L.vid, (MAPS, SMALLER), (weights(4),), equal=None, least=None),
    Row("nst", L.nst, (MAPS, SMALLER), equal=None, alone=("scaled channels", "exchanged channels")),
    Row("nst/equal sizes", L.nst, (MAPS, MAPS)),
    Row("unit_mse", L.unit_mse, (MAPS, MAPS), alone=("scaled samples",)),
    Row("attention_transfer", L.attention_transfer, (SMALLER, MAPS), equal=None, alone=("scaled samples", "negated")),
    Row("attention_transfer/paper", partial(L.attention_transfer, mode="paper"), (MAPS, MAPS),
        alone=("scaled samples", "exchanged channels")),
    Row("weighted_attention", L.weighted_attention, (MAPS, MAPS), (weights(N),), alone=("scaled samples",)),
    Row("factor_transfer", L.factor_transfer, (MAPS, MAPS), alone=("scaled samples",)),
    Row("factor_transfer/repdistiller", partial(L.factor_transfer, mode="repdistiller"), (MAPS, MAPS),
        alone=("scaled samples", "negated")),
    Row("activation_boundary", L.activation_boundary, (MAPS, MAPS), equal=None),
    Row("ofd", L.ofd, (MAPS, MAPS), (-10 * weights(4),)),
    Row("diversity_loss", L.diversity_loss, (MAPS, MAPS), equal=None, alone=("scaled samples", "negated")),
    Row("diversity_loss/unit", partial(L.diversity_loss, scale="unit"), (MAPS, MAPS), equal=None),
    Row("fsp", layered(L.fsp), LAYERS * 2),
    Row("fsp/torchdistill", layered(partial(L.fsp, mode="torchdistill")), LAYERS * 2),
    Row("lipschitz", layered(L.lipschitz), LAYERS * 2, alone=("negated",)),
    Row("kdsvd", layered(L.kdsvd), LAYERS * 2, alone=("negated", "scaled samples")),
    Row("kdsvd/mdistiller", layered(partial(L.kdsvd, mode="mdistiller", count=2)), LAYERS * 2, alone=("negated",)),
    Row("similarity_preserving", L.similarity_preserving, (VECTORS, VECTORS), repeated=0.5, alone=("scaled", "turned")),
    Row("rkd_distance", L.rkd_distance, (VECTORS, VECTORS), repeated=None, alone=("scaled", "shifted", "turned")),
    Row("rkd_angle", L.rkd_angle, (VECTORS, VECTORS), alone=("scaled", "shifted", "turned")),
    Row("pkt", L.pkt, (VECTORS, VECTORS), least=-1e-7, repeated=0.5, alone=("scaled samples", "turned")),
    Row("correlation_congruence", L.correlation_congruence, (VECTORS, VECTORS), repeated=None),
    Row("correlation_congruence/gaussian", partial(L.correlation_congruence, mode="gaussian"), ((N, 128), (N, 128)),
        repeated=0.5, alone=("negated",)),
    Row("correlation_congruence/bilinear", partial(L.correlation_congruence, mode="bilinear"), (VECTORS, VECTORS),
        repeated=0.5, alone=("turned",)),
    Row("crd", lambda p, n: L.crd(p.abs(), n.abs(), samples=100), ((N,), (N, 8)), equal=None),
    Row("absolute", L.absolute, (MAPS, MAPS)),
    Row("pixel_wise", L.pixel_wise, (MAPS, MAPS), repeated=2.0, alone=("shifted pixels",)),
    Row("pixel_wise/mean", partial(L.pixel_wise, reduction="mean"), (MAPS, MAPS), alone=("shifted pixels",)),
    Row("pixel_wise/valid", lambda s, t, valid: L.pixel_wise(s, t, valid=valid, reduction="elements"), (MAPS, MAPS),
        (MASK,), alone=("shifted pixels",)),
    Row("cwd", L.cwd, (MAPS, MAPS), alone=("shifted channels",)),
    Row("cwd/valid", lambda s, t, valid: L.cwd(s, t, valid=valid), (MAPS, MAPS), (MASK,), alone=("shifted channels",)),
    Row("pair_wise", L.pair_wise, (MAPS, MAPS), alone=("scaled samples",)),
    Row("pair_wise/average", partial(L.pair_wise, pool="average"), (MAPS, SMALLER), equal=None, alone=("negated",)),
    Row("ifvd", partial(L.ifvd, classes=6), (MAPS, MAPS), (LABEL_MAPS,), alone=("scaled samples", "negated")),
    Row("ifvd/labelled", partial(L.ifvd, classes=6, over="labelled"), (MAPS, SMALLER), (LABEL_MAPS,), equal=None),
]

NOT_DISTANCES = {"attention_map", "diversity_feature", "diversity_target", "general_weights", "linear_target",
                 "minlogit_target", "naive_target", "ofd_margin", "standardise"}

EXTREMES: dict[str, Callable[[Row], list[Tensor]]] = {
    "opposite signs": lambda row: [1e4 * sign * x.sign() for x, sign in zip(row.inputs(torch.float32),
                                                                           (1, -1, 1, -1), strict=False)],
    "large": lambda row: [1e4 * x.sign() for x in row.inputs(torch.float32, seed=1)],
    "zeros against large": lambda row: [torch.zeros_like(x) if i < len(row.shapes) / 2 else 1e4 * x.sign()
                                        for i, x in enumerate(row.inputs(torch.float32))],
    "zeros": lambda row: [torch.zeros_like(x) for x in row.inputs(torch.float32)],
    "a learner of zeros": lambda row: [torch.zeros_like(x) if i < len(row.shapes) / 2 else x
                                       for i, x in enumerate(row.inputs(torch.float32))],
    "a sample of zeros": lambda row: [x * (torch.arange(N) > 0).view(-1, *[1] * (x.ndim - 1))
                                      for x in row.inputs(torch.float32)],
    "two equal samples": lambda row: [x[[0, 0, *range(2, N)]] for x in row.inputs(torch.float32)],
    "equal samples": lambda row: [x[[0] * N] for x in row.inputs(torch.float32)],
    "equal entries": lambda row: [torch.full_like(x, 3.0) for x in row.inputs(torch.float32)],
    "tiny": lambda row: [1e-20 * x for x in row.inputs(torch.float32)],
}

LARGE = {"opposite signs", "large", "zeros against large"}


def each(which: Callable[[Row], bool] = lambda row: True) -> pytest.MarkDecorator:
    rows = [row for row in ROWS if which(row)]
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def learning(row: Row) -> int:
    """How many of the inputs belong to the side that learns."""
    return len(row.shapes) // 2


@each(lambda row: row.equal is not None)
def test_nothing_is_left_to_learn_where_both_sides_are_equal(row: Row):
    one_side = row.inputs()[:learning(row)]
    both = [x.clone().requires_grad_() for x in one_side]
    value = row(*both, *one_side)
    assert abs(value) <= row.equal
    for gradient in torch.autograd.grad(value, both):
        assert gradient.abs().max() <= max(row.equal, 1e-7)


@each(lambda row: row.least is not None)
def test_it_is_never_below_its_least(row: Row):
    for seed in range(5):
        for dtype in (torch.float64, torch.float32):
            assert row(*row.inputs(dtype, seed)) >= row.least - 10 * torch.finfo(dtype).eps


@each(lambda row: bool(row.alone))
def test_what_should_leave_it_alone_does(row: Row):
    inputs = row.inputs()
    for name in row.alone:
        changed = [CHANGES[name](x) for x in inputs[:learning(row)]]
        torch.testing.assert_close(row(*changed, *inputs[learning(row):]), row(*inputs), msg=f"{name} changes it")


@each(lambda row: row.repeated is not None)
def test_a_batch_that_comes_twice_is_worth_what_it_says(row: Row):
    inputs = row.inputs()
    twice = [torch.cat([x, x]) for x in inputs]
    extras = [torch.cat([x, x]) if len(x) == N else x for x in row.extras]
    again = row.loss(*twice, *(x.to(twice[0]) if x.is_floating_point() else x for x in extras))
    torch.testing.assert_close(again, row.repeated * row(*inputs))


@each()
@pytest.mark.parametrize("extreme", EXTREMES)
def test_value_and_gradients_are_finite_at_extremes(row: Row, extreme: str):
    inputs = [x.requires_grad_() for x in EXTREMES[extreme](row)]
    value = row(*inputs)
    assert value.isfinite()
    for gradient in torch.autograd.grad(value, inputs, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@each(lambda row: row.name != "crd")  # -log of a score is steep near zero
@pytest.mark.parametrize("extreme", [name for name in EXTREMES if name not in LARGE])
def test_gradients_stay_small_where_there_is_nothing_to_compare(row: Row, extreme: str):
    inputs = EXTREMES[extreme](row)
    live = [x.requires_grad_() for x in inputs[:learning(row)]]
    for gradient in torch.autograd.grad(row(*inputs), live, allow_unused=True):
        assert gradient is None or gradient.abs().max() < 100


@each()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_scalar_of_its_inputs_type_and_changes_none_of_them(row: Row, dtype: torch.dtype):
    inputs = row.inputs(dtype)
    value = row(*inputs)
    assert value.shape == ()
    assert value.dtype == dtype
    for before, after in zip(row.inputs(dtype), inputs, strict=True):
        assert torch.equal(before, after)


@each()
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, on first use
def test_forward_mode_gives_the_slope_that_the_gradient_gives(row: Row):
    inputs = row.inputs()
    live = [x.requires_grad_() for x in inputs[:learning(row)]]
    directions = row.inputs(seed=1)[:learning(row)]
    gradients = torch.autograd.grad(row(*inputs), live)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x.detach(), v) for x, v in zip(live, directions, strict=True)]
        slope = forward_ad.unpack_dual(row(*duals, *inputs[len(live):])).tangent
    torch.testing.assert_close(slope, sum((g * v).sum() for g, v in zip(gradients, directions, strict=True)))


def test_every_public_distance_has_a_row():
    assert {row.name.partition("/")[0] for row in ROWS} | NOT_DISTANCES == set(L.__all__)
