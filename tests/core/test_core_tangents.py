"""Tangents through fused batch norm and replayed convolutions equal PyTorch's own forward mode."""

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

from limbeck.members import Frozen
from limbeck.seen import Seen
from limbeck.tangents import FusedBatchNorm, Kept, Replayed


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


class Convolutions(TorchDispatchMode):
    """Counts convolutions."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "convolution" in str(func)
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
        with torch.no_grad(), forward_ad.dual_level(), mode, Convolutions() as convolutions:
            values = {n: forward_ad.make_dual(p.detach(), along[n]) for n, p in layer.named_parameters() if n in along}
            given = forward_ad.make_dual(x, torch.ones_like(x)) if "input" in moving else x
            found.append(forward_ad.unpack_dual(functional_call(layer, values, given)))
    torch.testing.assert_close(found[1].primal, expected, rtol=0, atol=0)
    assert (found[0].tangent is None) == (found[1].tangent is None)
    if found[0].tangent is not None:
        torch.testing.assert_close(found[1].tangent, found[0].tangent, rtol=1e-10, atol=1e-12)
    assert convolutions.count == ("input" in moving) + ("weight" in along)
    assert not kept.values


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
    count = len([m for m in members["student"].module.modules() if isinstance(m, nn.Conv2d)])
    assert seen["student.logits"].requires_grad
    assert len(seen.kept["student"].values) == count > 0


def test_what_is_compiled_is_not_kept() -> None:
    student = network(Plain())
    student.module.compile(backend="eager")
    seen = Seen(batch(), clock(), {"student": student}, aliased=True)
    assert seen["student.logits"].requires_grad
    assert seen.kept == {}
    torch._dynamo.reset()
