"""Learns networks that terms read and nobody's optimiser steps: by the slope of a loss at the end of virtual steps.

After the real step to theta, SGD's rule is followed a few times further, with its batch, rate, decay and velocity:
    theta_0 = theta,  theta_k+1 = S(theta_k, gradient of some terms at theta_k),  loss = outer term at theta_K.
The learned networks shape the terms, so the loss depends on them through every step; Adam follows its slope. Then the
run goes on from theta as if nothing had been: the virtual steps are made on copies.

The slope goes backwards through one step at a time, each computed a second time for that: one step's graph is kept, not
all of them, and the result is that of differentiating through the whole chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.errors import Mistake
from limbeck.method import Step
from limbeck.optimizer_parts import parts
from limbeck.ranks import mean_over_ranks
from limbeck.seen import random_state, set_random_state
from limbeck.slopes import Passes

Values = dict[str, Tensor]


@dataclass(frozen=True)
class _State:
    """Where a virtual step starts: parameters and their velocities, by name, and the random numbers it will draw."""

    values: Values
    velocities: Values
    random: Tensor


class Unrolled:
    """A companion that a method brings: learns `nets` by looking through virtual steps.

    On several ranks each looks at its own share of the batch, and slopes are averaged. Passes run in full precision.

    Args:
        nets: What is learned. The method's terms read it; it is no submodule of theirs.
        turns: The terms of each virtual step, in order.
        outer: The term whose value at the end is to fall.
        every: Look ahead after every so many steps.
        lr: Adam's learning rate.
        weight_decay: Adam's L2 penalty.
    """

    def __init__(self, nets: nn.Module, turns: Sequence[frozenset[str]], outer: str = "ce", *, every: int = 1,
                 lr: float = 1e-4, weight_decay: float = 1e-4):
        self.nets = nets.requires_grad_(False)  # in the real step it is a constant
        self.turns, self.outer, self.every = tuple(turns), outer, every
        self.optimizer = torch.optim.Adam(nets.parameters(), lr=lr, weight_decay=weight_decay)

    def to(self, device: torch.device) -> None:
        self.nets.to(device)

    def wants_aliases(self, step: int) -> bool:
        return False

    def before(self, step: Step) -> None:
        for part in parts(step.optimizer):
            if not isinstance(part, torch.optim.SGD):
                raise Mistake(f"virtual steps are SGD's, as the real ones must be; got {type(part).__name__}. Set "
                              f"optimizer.name=sgd for all who learn.")

    def after(self, step: Step) -> None:
        if step.clock.step % self.every:
            return
        for parameter, slope in zip(self.nets.parameters(), mean_over_ranks(self.slopes(step)), strict=True):
            parameter.grad = slope
        self.optimizer.step()
        self.optimizer.zero_grad()

    def slopes(self, step: Step) -> list[Tensor | None]:
        """d(outer term after the virtual steps) / d(parameter) for every parameter of `nets`, on this rank's images."""
        device = step.batch.images.device
        random = random_state(device)
        self.nets.requires_grad_(True)
        try:
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
                return self._backwards(step, self._forwards(step))
        finally:
            self.nets.requires_grad_(False)
            set_random_state(random, device)

    def _forwards(self, step: Step) -> list[_State]:
        """The states before each virtual step, and the last one."""
        device = step.batch.images.device
        values = {name: p.detach() for name, p in step.method.named_parameters() if p.requires_grad}
        memory = {p: own.get("momentum_buffer") for part in parts(step.optimizer) for p, own in part.state.items()}
        velocities = {name: memory.get(p) for name, p in step.method.named_parameters() if name in values}
        states = [_State(values, {name: torch.zeros_like(values[name]) if v is None else v
                                  for name, v in velocities.items()}, random_state(device))]
        for terms in self.turns:
            after = self._virtual(step, states[-1].values, states[-1].velocities, terms)
            states.append(_State(*after, random_state(device)))
        return states

    def _backwards(self, step: Step, states: list[_State]) -> list[Tensor | None]:
        """From the slope at the end back through every step, each taken again, to the nets."""
        nets = list(self.nets.parameters())
        total: list[Tensor | None] = [None] * len(nets)
        end = _leaves(states[-1].values)
        slopes = [*self._gradient(step, end, frozenset({self.outer})).values(),
                  *(torch.zeros_like(v) for v in states[-1].velocities.values())]
        for state, terms in zip(reversed(states[:-1]), reversed(self.turns), strict=True):
            set_random_state(state.random, step.batch.images.device)
            before = _leaves(state.values), _leaves(state.velocities)
            after = self._virtual(step, *before, terms, through=True)
            inputs = [x for part in before for x in part.values()]
            found = torch.autograd.grad([x for part in after for x in part.values()], [*inputs, *nets], slopes,
                                        allow_unused=True)
            slopes = [torch.zeros_like(x) if slope is None else slope
                      for x, slope in zip(inputs, found, strict=False)]
            total = [one if other is None else other if one is None else one + other
                     for one, other in zip(total, found[len(inputs):], strict=True)]
        return total

    def _virtual(self, step: Step, values: Values, velocities: Values, terms: frozenset[str], *,
                 through: bool = False) -> tuple[Values, Values]:
        """Parameters and velocities one step of SGD later; a parameter that the terms do not reach moves on as well."""
        groups = {id(p): group for group in step.optimizer.param_groups for p in group["params"]}
        parameters, moved, sped = dict(step.method.named_parameters()), {}, {}
        gradients = self._gradient(step, values if through else _leaves(values), terms, through=through)
        for name, gradient in gradients.items():
            group = groups[id(parameters[name])]
            gradient = gradient + group["weight_decay"] * values[name]
            sped[name] = group["momentum"] * velocities[name] + gradient
            ahead = gradient + group["momentum"] * sped[name] if group["nesterov"] else sped[name]
            moved[name] = values[name] - group["lr"] * ahead
        return moved, sped

    def _gradient(self, step: Step, values: Values, terms: frozenset[str], *, through: bool = False) -> Values:
        """Gradient of the weighted terms at other parameters, by name; 0 where they do not reach."""
        assert step.weights is not None
        passes = Passes(step.method)
        losses, _ = passes.run(passes.again(step), values, terms)
        weights = dict(zip(step.method.process.names, step.weights, strict=True))
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        found = torch.autograd.grad(total, list(values.values()), create_graph=through, allow_unused=True)
        return {name: torch.zeros_like(values[name]) if gradient is None else gradient
                for name, gradient in zip(values, found, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"nets": self.nets.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.optimizer.load_state_dict(state["optimizer"])


def _leaves(values: Values) -> Values:
    return {name: x.detach().requires_grad_() for name, x in values.items()}
