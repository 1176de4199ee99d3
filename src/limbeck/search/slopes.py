"""Four ways to get <g_i, d>: how fast each term falls when the members' parameters move along d.

* `exact`: term i reads members' outputs F at addresses a, so <g_i, d> = sum_a <d l_i / d F_a, dF_a along d>. The first
  factor is what the step's own backward leaves at the term's aliases (times w_i); the second comes from one
  forward-mode pass through the members that carry d, the same for all terms. Nothing runs twice through connectors or
  teacher.
* `forward`: one forward-mode pass through everything.
* `central`: (l_i(theta + e d) - l_i(theta - e d)) / 2e with |e d| = 0.01, as the paper has it.
* `onesided`: (l_i(theta + e d) - l_i(theta)) / e; l_i(theta) is the step's own where that ran in full precision.

All run on copies of every buffer, with teachers' outputs and dropout as the step had them. Differences and `forward`
run in full precision; the tangents of `exact` in the step's own, as do the gradients that they meet.
Source: specs/distpro.md sections 8 and 9.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.derivatives.tangents import FusedBatchNorm
from limbeck.method import Method, Step
from limbeck.seen import Outputs, Seen
from limbeck.taps.calls import as_written
from limbeck.terms import full

Estimator = Literal["exact", "forward", "central", "onesided"]
_REACH = 0.01  # length of a difference's perturbation over all parameters together; DARTS, and the released DistPro


class Passes:
    """Passes of a method at other parameters; the method itself, its buffers included, stays as it is.

    Compiled modules run as they are written: other parameters would have them compiled again.

    Args:
        method: Whose.
        autocast: What tangents run in: the step's own context, as the gradients they meet came from it too.
    """

    def __init__(self, method: Method, autocast: Callable[[], AbstractContextManager] = nullcontext):
        self.method, self.autocast = method, autocast
        self._losses, self._outputs = _Losses(method), _Outputs(method)

    def again(self, step: Step, *, aliased: bool = False, replayed: bool = False) -> Seen:
        """A `Seen` for another pass over the step's batch: teachers as they were, dropout as it was.

        Args:
            step: The step, taken.
            aliased: With aliases for terms, as the step's own.
            replayed: At the parameters that the step started from, once: convolutions give what they gave.
        """
        assert step.seen is not None
        known = step.seen.computed(self.method.frozen)
        return self.method.see(step.batch, step.clock, known=known, random=step.seen.random, aliased=aliased,
                               replayed=step.seen.kept if replayed else None)

    def losses(self, seen: Seen, parameters: Mapping[str, Tensor], active: frozenset[str]) -> dict[str, Tensor]:
        """The active terms' values.

        Args:
            seen: What is known so far.
            parameters: Name -> value for those that differ from the method's own.
            active: Terms to compute.
        """
        with as_written(self.method.modules()):
            found: dict[str, Tensor] = functional_call(self._losses, _state(self._losses, parameters), (seen, active))
        return found

    def outputs(self, seen: Seen, parameters: Mapping[str, Tensor], addresses: Iterable[str]) -> Outputs:
        """Members' outputs at some addresses; terms, and what they learn, are not looked at.

        Args:
            seen: What is known so far.
            parameters: Name -> value for those of members that differ from the method's own; others are passed over.
            addresses: What is wanted.
        """
        own = {name: value for name, value in parameters.items() if name.startswith("members.")}
        with as_written(self.method.modules()):
            found: Outputs = functional_call(self._outputs, _state(self._outputs, own), (seen, tuple(addresses)))
        return found


def _state(part: _Losses | _Outputs, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the part's buffers, and parameters by the names that they have in it."""
    prefix = "method." if isinstance(part, _Losses) else ""
    return {name: b.clone() for name, b in part.named_buffers()} | {prefix + n: p for n, p in parameters.items()}


class _Losses(nn.Module):
    """The method's terms in one call."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, seen: Seen, active: frozenset[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.method(seen, active)
        return found


class _Outputs(nn.Module):
    """Any addresses of the method's members in one call."""

    def __init__(self, method: Method):
        super().__init__()
        self.members = method.members

    def forward(self, seen: Seen, addresses: tuple[str, ...]) -> Outputs:
        return {address: seen[address] for address in addresses}


def exact(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor],
          terms: Sequence[str]) -> dict[str, Tensor]:
    """Reverse through the terms, forward through the members.

    Args:
        passes: Passes of the step's method.
        step: The step, its backward done, read through aliases.
        start: Parameters before the step, by name: those of members, for the other three estimators those of terms too.
        direction: d, for the members' parameters that the held-out loss depends on.
        terms: The terms whose slopes are wanted; all were computed in the step.

    Returns:
        Term -> <g_i, d>; terms that d does not reach are absent.
    """
    assert step.seen is not None
    assert step.weights is not None
    arrived = {name: step.seen.gradients.get(name, {}) for name in terms}
    tangents = _tangents(passes, step, start, direction, _in_order(step.seen, arrived.values()))
    weights = dict(zip(step.method.process.names, step.weights, strict=True))
    slopes = {}
    for name, own in arrived.items():
        reached = {address: gradient for address, gradient in own.items() if address in tangents}
        if reached:
            slopes[name] = _inner(reached, tangents) / torch.where(weights[name] == 0, 1, weights[name])
    if not getattr(step.method.process, "can_vanish", True):
        return slopes
    for name in [n for n in slopes if weights[n] == 0]:  # 0 left nothing at its aliases: a backward of its own
        again, parameters = passes.again(step, aliased=True), {n: p.detach().requires_grad_() for n, p in start.items()}
        losses = passes.losses(again, parameters, frozenset({name}))
        own = {a: x for a, x in again.aliases[name].items() if a in tangents}
        gradients = torch.autograd.grad(losses[name], list(own.values()))
        slopes[name] = _inner(dict(zip(own, gradients, strict=True)), tangents)
    return slopes


def _in_order(seen: Seen, aliases: Iterable[Iterable[str]]) -> list[str]:
    """The addresses, by when their members began: one that runs inside another draws between its random numbers."""
    members = list(seen.random)
    return sorted({a for own in aliases for a in own}, key=lambda a: (members.index(a.partition(".")[0]), a))


def _inner(gradients: Mapping[str, Tensor], tangents: Outputs) -> Tensor:
    products = []
    for address, gradient in gradients.items():
        gradient = full(gradient)
        if tangents[address].stride() != gradient.stride() and _dense(gradient):  # once for all terms that read there
            tangents[address] = torch.empty_like(gradient).copy_(tangents[address])
        products.append(_dot(gradient, tangents[address]))
    return torch.stack(products).sum()


def _dense(x: Tensor) -> bool:
    """Whether its entries fill their memory, in whatever order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense.default(x))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """<x, y>, in one pass where both lie dense in memory, in the same order."""
    if _dense(x) and x.stride() == y.stride():
        return torch.dot(x.as_strided((x.numel(),), (1,)), y.as_strided((y.numel(),), (1,)))
    return (x * y).sum()


@contextmanager
def _along(start: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The parameters, those with a direction carrying it as their tangent."""
    plain = sdpa_kernel(SDPBackend.MATH)  # fused attention has no forward mode
    with warnings.catch_warnings(), torch.no_grad(), forward_ad.dual_level(), plain, FusedBatchNorm():
        warnings.simplefilter("ignore", FutureWarning)  # torch scripts its own decompositions when they are first used
        yield {**start, **{name: forward_ad.make_dual(start[name], d) for name, d in direction.items()}}


def _tangents(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor],
              addresses: Sequence[str]) -> Outputs:
    """How members' outputs move along d, by address; those that do not are absent."""
    with _along(start, direction) as parameters:
        with passes.autocast():
            outputs = passes.outputs(passes.again(step, replayed=True), parameters, addresses)
        pairs = {address: forward_ad.unpack_dual(x).tangent for address, x in outputs.items()}
    return {address: full(tangent) for address, tangent in pairs.items() if tangent is not None}


def forward(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor],
            terms: Sequence[str]) -> dict[str, Tensor]:
    """Forward mode through members, connectors and distances; arguments and result as for `exact`."""
    with _along(start, direction) as parameters:
        losses = passes.losses(passes.again(step), parameters, frozenset(terms))
        pairs = {name: forward_ad.unpack_dual(loss).tangent for name, loss in losses.items()}
    return {name: tangent for name, tangent in pairs.items() if tangent is not None}


def central(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor],
            terms: Sequence[str]) -> dict[str, Tensor]:
    """The paper's difference on both sides; arguments as for `exact`, every term present."""
    reach = _reach(direction)
    ahead, behind = (_moved(passes, step, start, direction, side * reach, terms) for side in (1, -1))
    return {name: (ahead[name] - behind[name]) / (2 * reach) for name in terms}


def onesided(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor],
             terms: Sequence[str]) -> dict[str, Tensor]:
    """A difference on one side, from the step's own losses; arguments as for `exact`, every term present."""
    reach = _reach(direction)
    ahead = _moved(passes, step, start, direction, reach, terms)
    here = step.losses if step.precise else _moved(passes, step, start, direction, 0 * reach, terms)
    return {name: (ahead[name] - here[name].detach()) / reach for name in terms}


def _reach(direction: Mapping[str, Tensor]) -> Tensor:
    return _REACH / torch.stack([d.norm() for d in direction.values()]).norm().clamp(min=1e-30)


def _moved(passes: Passes, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor], reach: Tensor,
           terms: Sequence[str]) -> dict[str, Tensor]:
    moved = {**start, **{name: start[name] + reach * d for name, d in direction.items()}}
    with torch.no_grad():
        return passes.losses(passes.again(step), moved, frozenset(terms))


ESTIMATORS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "exact": exact, "forward": forward, "central": central, "onesided": onesided}
"""Ways to get <g_i, d>, by name; all with the signature of `exact`."""
