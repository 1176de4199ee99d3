"""Tangents through fused batch norm and what is replayed equal PyTorch's own forward mode."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from core_reference import searched, take_step, warm, watch
from core_tiny import Plain, batch, clock, network
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.derivatives.tangents import FusedBatchNorm, Kept, Replayed
from limbeck.members import Frozen
from limbeck.seen import Seen


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("moving", [("weight", "bias"), ()], ids=["all", "input alone"])
@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (7, 4)])
def test_tangents_are_those_of_plain_forward_mode(shape: tuple[int, ...], moving: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4).double()
    nn.init.normal_(norm.weight)
    x, direction = torch.randn(2, *shape, dtype=torch.float64)
    along = {name: torch.randn(4, dtype=torch.float64) for name in moving}
    found = []
    for fused in (False, True):
        buffers = {name: b.clone() for name, b in norm.named_buffers()}
        with torch.no_grad(), forward_ad.dual_level():
            values = {n: forward_ad.make_dual(p.detach(), along[n]) if n in along else p.detach()
                      for n, p in norm.named_parameters()}
            dual = forward_ad.make_dual(x, direction)
            if fused:
                with FusedBatchNorm():
                    out = functional_call(norm, {**values, **buffers}, dual)
            else:
                out = functional_call(norm, {**values, **buffers}, dual)
            found.append((*forward_ad.unpack_dual(out), buffers))
    (out, change, plain), (fused_out, fused_change, own) = found
    torch.testing.assert_close(fused_out, out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused_change, change, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(own["running_var"], plain["running_var"])


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(3, 4, 3, bias=False),
    "strided, with bias": lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
    "dilated, padded by name": lambda: nn.Conv2d(3, 6, 3, dilation=2, padding="same", groups=3),
}


class Calls(TorchDispatchMode):
    """Counts calls of kernels by parts of their names."""

    def __init__(self, *names: str):
        super().__init__()
        self.counts = dict.fromkeys(names, 0)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for name in self.counts:
            self.counts[name] += name in str(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("moving", [("input", "weight", "bias"), ("input",), ("weight",), ("bias",), ()], ids=" ".join)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_replayed_convolution_costs_its_tangents_alone(kind: str, moving: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    layer, x = CONVOLUTIONS[kind]().double(), torch.randn(2, 3, 6, 5, dtype=torch.float64)
    along = {name: torch.randn_like(p) for name, p in layer.named_parameters() if name in moving}
    kept, found = Kept(), []
    with kept:
        expected = layer(x)
    for mode in (torch.no_grad(), Replayed(kept.values)):
        with torch.no_grad(), forward_ad.dual_level(), mode, Calls("convolution") as calls:
            values = {n: forward_ad.make_dual(p.detach(), along[n]) for n, p in layer.named_parameters() if n in along}
            given = forward_ad.make_dual(x, torch.ones_like(x)) if "input" in moving else x
            found.append(forward_ad.unpack_dual(functional_call(layer, values, given)))
    torch.testing.assert_close(found[1].primal, expected, rtol=0, atol=0)
    assert (found[0].tangent is None) == (found[1].tangent is None)
    if found[0].tangent is not None:
        torch.testing.assert_close(found[1].tangent, found[0].tangent, rtol=1e-10, atol=1e-12)
    assert calls.counts["convolution"] == ("input" in moving) + ("weight" in along)
    assert not kept.values


def layers(*, inplace: bool) -> nn.Sequential:
    """Two convolutions, each with norm and ReLU."""
    torch.manual_seed(0)
    made = [(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace)) for _ in range(2)]
    return nn.Sequential(*(layer for row in made for layer in row)).double()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("moving", [("weight", "bias"), ("0.weight",), ("4.weight",), ("4.bias",), ()], ids=" ".join)
def test_replayed_norms_and_relus_cost_their_tangents_alone(moving: tuple[str, ...], inplace: bool) -> None:
    model, x, found = layers(inplace=inplace), torch.randn(4, 3, 6, 5, dtype=torch.float64), []
    along = {name: torch.randn_like(p) for name, p in model.named_parameters() if name.endswith(moving)}
    kept = Kept()
    with kept:
        expected = model(x)
    for mode in (nullcontext(), Replayed(kept.values)):
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        with torch.no_grad(), forward_ad.dual_level(), mode, Calls("native_batch_norm.default", "aten.relu") as calls:
            own = dict(model.named_parameters())
            values = {name: forward_ad.make_dual(own[name].detach(), change) for name, change in along.items()}
            found.append(forward_ad.unpack_dual(functional_call(model, {**values, **buffers}, x)))
    torch.testing.assert_close(found[1].primal, expected, rtol=0, atol=0)
    assert (found[0].tangent is None) == (found[1].tangent is None) == (not moving)
    if moving:
        torch.testing.assert_close(found[1].tangent, found[0].tangent, rtol=1e-10, atol=1e-12)
    assert (sum(calls.counts.values()) > 0) is inplace  # what a ReLU overwrites is computed again
    assert not kept.values


@pytest.mark.parametrize("moving", [("weight", "bias"), ("weight",), ("bias",), ()], ids=" ".join)
def test_tangents_of_norms_in_low_precision_are_those_in_full(moving: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    norm, (x, direction), found = nn.BatchNorm2d(4), torch.randn(2, 6, 4, 5, 3).bfloat16(), []
    along = {name: torch.randn(4) for name in moving}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), forward_ad.dual_level(), FusedBatchNorm():
            values = {n: forward_ad.make_dual(p.detach(), along[n]) if n in along else p.detach()
                      for n, p in norm.named_parameters()}
            dual = forward_ad.make_dual(x.to(dtype), direction.to(dtype))
            found.append(forward_ad.unpack_dual(functional_call(norm, values, dual)).tangent)
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[1].float(), found[0], rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_norms_that_the_kernels_do_not_serve_run_as_ever() -> None:
    x, weight, kept = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.rand(3, dtype=torch.float64), Kept()
    with kept:
        expected = nn.functional.batch_norm(x, None, None, weight, training=True)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            nn.functional.batch_norm(x[:1, :, :1, :1], None, None, weight, weight, training=True)
    assert not kept.values
    with FusedBatchNorm(), torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        out = forward_ad.unpack_dual(nn.functional.batch_norm(dual, None, None, weight, training=True))
    torch.testing.assert_close(out.primal, expected)
    torch.testing.assert_close(out.tangent, torch.zeros_like(x), rtol=0, atol=1e-12)  # a shift of all changes nothing


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_overwritten_is_computed_again() -> None:
    torch.manual_seed(0)
    layer, x, kept = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 6, 5), Kept()
    with kept:
        layer(x).add_(1)
    expected = layer(x).detach()
    with Replayed(kept.values), torch.no_grad(), forward_ad.dual_level():
        out = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, torch.ones_like(x))))
    torch.testing.assert_close(out.primal, expected, rtol=0, atol=0)
    torch.testing.assert_close(out.tangent, nn.functional.conv2d(torch.ones_like(x), layer.weight))


def test_slopes_in_low_precision_are_near_those_in_full() -> None:
    found = []
    for context in (nullcontext, partial(torch.autocast, "cpu", torch.bfloat16)):
        torch.manual_seed(1)
        search = searched("distpro", order="paper", autocast=context)
        optimizer, slopes = warm(search, "nesterov"), watch(search)
        torch.manual_seed(2)
        take_step(search.method, optimizer, clock(3), search)
        found += slopes
    full, low = found
    assert not torch.equal(full, low)
    assert (full - low).norm() < 0.2 * full.norm()


def test_learners_are_kept_where_the_step_has_aliases_and_teachers_never() -> None:
    members = {"student": network(Plain()), "teacher": Frozen(network(Plain()))}
    for aliased, expected in ((True, {"student"}), (False, set())):
        seen = Seen(batch(), clock(), members, aliased=aliased)
        assert all(isinstance(seen[f"{name}.logits"], Tensor) for name in members)
        assert seen.kept.keys() == expected
    seen = Seen(batch(), clock(), members, aliased=True)
    count = len([m for m in members["student"].module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)])
    assert seen["student.logits"].requires_grad
    assert len(seen.kept["student"].values) == count > 0


def test_what_is_compiled_is_not_kept() -> None:
    student = network(Plain())
    student.module.compile(backend="eager")
    seen = Seen(batch(), clock(), {"student": student}, aliased=True)
    assert seen["student.logits"].requires_grad
    assert seen.kept == {}
    torch._dynamo.reset()
