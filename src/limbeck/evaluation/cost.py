"""What each part of a method costs in a step: parameters, multiply-adds, time forward and backward.

A part is a member, a frozen network or a term, taken for itself: what it reads is there already, and its backward pass
stops there. Multiply-adds (MACs) are those of convolutions and matrix products in one forward pass on one image, as
`torch.utils.flop_counter` finds them; FLOPs are twice as many. Papers often call MACs FLOPs (FFSD's Table VII does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from limbeck.method import Method
from limbeck.seen import Batch, Clock, Outputs, Seen

Kind = Literal["member", "frozen", "term", "step", "deployed"]
Key = tuple[Kind, str]
Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Cost:
    """What one part costs.

    Attributes:
        part: Its name in the method; `all terms without layers` are one.
        kind: `member`, `frozen` or `term`; `step`: everything at once, as a step runs it, without the optimiser;
            `deployed`: what ships, alone, in eval mode and without gradient.
        passes: How often a step computes it, on average over training: a dropped term is not computed, and members of a
            method with several turns are in each.
        parameters: Trained with this part, or frozen; none of what is lent to it.
        macs: Multiply-adds of a forward pass, per image.
        forward: Milliseconds for a batch, in the fastest of all rounds: what else the machine does only adds to it.
        backward: The same, of the backward pass.
    """

    part: str
    kind: Kind
    passes: float
    parameters: int
    macs: float
    forward: float
    backward: float

    def as_json(self) -> dict[str, Any]:
        """All of it, units in the names."""
        told = asdict(self)
        return {**{key: told[key] for key in ("part", "kind", "passes", "parameters")}, "macs_per_image": self.macs,
                "flops_per_image": 2 * self.macs, "forward_ms": self.forward, "backward_ms": self.backward}


def costs(method: Method, batch: Batch, epochs: Sequence[Clock], *, autocast: Autocast = nullcontext,
          rounds: int = 7) -> list[Cost]:
    """The cost of every part, of all of them in one step, and of the network that ships.

    Args:
        method: On the device; running statistics go on, gradients are cleared.
        batch: Training images, with the views that the method asks for.
        epochs: The clock at the beginning of each epoch, over which passes are counted.
        autocast: Context for low precision.
        rounds: How often each part is timed, in turn with all others; one more round warms up.
    """
    method.train()
    parts = _Parts(method, batch, epochs[-1], autocast)
    passes = _passes(method, epochs)
    runs: dict[Key, Callable[[], tuple[float, float]]] = {key: parts.timer(*key) for key in parts.everyone()}
    runs |= {("step", "everything"): parts.whole, ("deployed", method.deploy): parts.alone}
    times: dict[Key, list[tuple[float, float]]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            seconds = run()
            times[key] += [seconds] * bool(number)
    method.zero_grad(set_to_none=True)
    return _collected([parts.cost(kind, name, passes.get((kind, name), 1.0), times[kind, name]) for kind, name in runs])


def multiply_adds(run: Callable[[], object]) -> float:
    """Those of whatever runs; with gradients on, as without them torch may fuse attention where none are counted."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def _collected(found: Sequence[Cost]) -> list[Cost]:
    """Terms that have neither parameters nor multiply-adds as one; who never runs and has nothing left out."""
    plain = [cost for cost in found if cost.kind == "term" and not cost.parameters and not cost.macs and cost.passes]
    kept = [cost for cost in found if cost not in plain and (cost.passes or cost.parameters)]
    if len(plain) > 1:
        one = Cost(f"{len(plain)} terms without layers", "term", 1.0, 0, 0.0, *(
            sum(cost.passes * getattr(cost, side) for cost in plain) for side in ("forward", "backward")))
        plain = [one]
    place = next((i for i, cost in enumerate(kept) if cost.kind in ("frozen", "step")), len(kept))
    return [*kept[:place], *plain, *kept[place:]]


def _passes(method: Method, epochs: Sequence[Clock]) -> dict[Key, float]:
    """(kind, name) -> how often a step computes it, averaged over the epochs."""
    counts: dict[Key, float] = {("term", name): 0.0 for name in method.terms}
    counts |= {("member", name): 0.0 for name in method.members} | {("frozen", name): 0.0 for name in method.frozen}
    for clock in epochs:
        active = method.process.active(clock)
        for turn in method.turns:
            terms = active & turn.terms
            everyone: list[Key] = [("term", name) for name in terms]
            for name in method.asked(address for term in terms for address in method.terms[term].reads):
                everyone.append(("frozen" if name in method.frozen else "member", name))
            for key in everyone:
                counts[key] += 1 / len(epochs)
    return counts


class _Parts:
    """Runs single parts of a method on what all others computed of a batch."""

    def __init__(self, method: Method, batch: Batch, clock: Clock, autocast: Autocast):
        self.method, self.batch, self.clock, self.autocast = method, batch, clock, autocast
        self.modules: dict[Kind, Mapping[str, nn.Module]] = {
            "member": dict(method.members.items()), "term": dict(method.terms.items()), "frozen": method.frozen}
        seen = method.see(batch, clock)
        with autocast():
            self.known = {name: seen.outputs(name) for name in (*method.members, *method.frozen)}

    def everyone(self) -> list[Key]:
        """Every part."""
        return [(kind, name) for kind, parts in self.modules.items() for name in parts]

    def timer(self, kind: Kind, name: str) -> Callable[[], tuple[float, float]]:
        """Seconds forward and backward, whenever it is called."""
        return lambda: self._timed(lambda: self._outputs(kind, name))

    def whole(self) -> tuple[float, float]:
        """Seconds of a step, all turns together."""
        both = [self._timed(partial(self._losses, turn.terms)) for turn in self.method.turns]
        forward, backward = (sum(seconds) for seconds in zip(*both, strict=True))
        return forward, backward

    def alone(self) -> tuple[float, float]:
        """Seconds of what ships, in eval mode."""
        with torch.no_grad():
            return self._timed(self._deployed())

    def cost(self, kind: Kind, name: str, passes: float, times: Sequence[tuple[float, float]]) -> Cost:
        """What is known of a part once it is timed."""
        forward, backward = (1e3 * min(side) for side in zip(*times, strict=True))
        if kind == "step":
            module: nn.Module = self.method
            macs = sum(self._macs(partial(self._losses, turn.terms)) for turn in self.method.turns)
        elif kind == "deployed":
            module, macs = self.method.student().module, self._macs(self._deployed())
        else:
            module, macs = self.modules[kind][name], self._macs(partial(self._outputs, kind, name))
        return Cost(name, kind, passes, sum(p.numel() for p in module.parameters()), macs, forward, backward)

    def _seen(self, name: str | None) -> Seen:
        """What a part finds: all outputs but this member's, as leaves."""
        leaves = {other: {tap: x.detach().requires_grad_(x.requires_grad) for tap, x in outputs.items()}
                  for other, outputs in self.known.items() if other != name}
        return self.method.see(self.batch, self.clock, known=leaves)

    def _outputs(self, kind: Kind, name: str) -> list[Tensor]:
        made: Tensor | Outputs = self.modules[kind][name](self._seen(None if kind == "term" else name))
        return [made] if isinstance(made, Tensor) else list(made.values())

    def _deployed(self) -> Callable[[], list[Tensor]]:
        network = self.method.student()
        module, images = network.deployed().eval(), network.normalise(self.batch.images)
        return lambda: [module(images)]

    def _losses(self, terms: frozenset[str]) -> list[Tensor]:
        process = self.method.process
        losses = self.method(self.method.see(self.batch, self.clock), process.active(self.clock) & terms)
        weights = process.weights(self.clock).to(self.batch.images.device)
        weighed = [weights[process.names.index(name)] * loss for name, loss in losses.items()]
        return [torch.stack(weighed).sum()] if weighed else []

    def _timed(self, run: Callable[[], list[Tensor]]) -> tuple[float, float]:
        self.method.zero_grad(set_to_none=True)
        began = self._now()
        with self.autocast():
            outputs = [x for x in run() if x.requires_grad]
        between = self._now()
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        return between - began, self._now() - between

    def _macs(self, run: Callable[[], object]) -> float:
        with self.autocast():
            return multiply_adds(run) / len(self.batch)

    def _now(self) -> float:
        if self.batch.images.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
