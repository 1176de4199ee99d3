"""Learns networks that terms read and nobody's optimiser steps: by the slope of a loss at the end of virtual steps.

After the real step to theta, SGD's rule is followed a few times further, with its batch, rate, decay and velocity:
    theta_0 = theta,  theta_k+1 = S(theta_k, gradient of some terms at theta_k),  loss = outer term at theta_K.
The learned networks shape the terms, so the loss depends on them through every step; Adam follows its slope. Then the
run goes on from theta as if nothing had been: the virtual steps are made on copies.

The slope goes backwards through the steps by the rule of SGD, and through each step's gradient by its graph, which is
kept from the way there: nothing is computed twice. Of the first step only the learned networks' own slope is wanted,
so what its gradient owes to the parameters is not differentiated. With F the price of a forward pass, K virtual steps
cost 3 F each to take and 6 F each to go back through, the first one 2 F, and the outer loss 3 F: 26 F for K = 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from limbeck.derivatives.twice import FusedTwice
from limbeck.errors import Mistake
from limbeck.method import Step
from limbeck.optimizer_parts import parts
from limbeck.ranks import mean_over_ranks
from limbeck.search.slopes import Passes
from limbeck.seen import random_state, set_random_state

Values = dict[str, Tensor]
Rules = Mapping[str, Mapping[str, Any]]
"""SGD's settings of each parameter, by name."""


@dataclass(frozen=True)
class _Taken:
    """A virtual step that was taken: what its gradient was found at, and that gradient, still on its graph."""

    values: Values
    gradient: Values


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
                return self._backwards(step, *self._forwards(step))
        finally:
            self.nets.requires_grad_(False)
            set_random_state(random, device)

    def _forwards(self, step: Step) -> tuple[list[_Taken], Values]:
        """The virtual steps, and the slope of the outer term where they end."""
        values = {name: p.detach() for name, p in step.method.named_parameters() if p.requires_grad}
        memory = {p: own.get("momentum_buffer") for part in parts(step.optimizer) for p, own in part.state.items()}
        buffers = {name: memory.get(p) for name, p in step.method.named_parameters() if name in values}
        velocities = {name: torch.zeros_like(values[name]) if v is None else v for name, v in buffers.items()}
        rules = self._rules(step)
        taken: list[_Taken] = []
        for terms in self.turns:
            leaves = _leaves(values)
            with FusedTwice(through=bool(taken)):
                taken.append(_Taken(leaves, self._gradient(step, leaves, terms, differentiable=True)))
            values, velocities = _rule(rules, values, velocities, taken[-1].gradient)
        end = _leaves(values)
        slopes = self._gradient(step, end, frozenset({self.outer}))
        return taken, {name: slopes.get(name, torch.zeros_like(x)) for name, x in end.items()}

    def _backwards(self, step: Step, taken: list[_Taken], slopes: Values) -> list[Tensor | None]:
        """From the slope at the end back through every step to the nets."""
        nets, rules = list(self.nets.parameters()), self._rules(step)
        total: list[Tensor | None] = [None] * len(nets)
        speeds: Values = {}
        for number, one in reversed(list(enumerate(taken))):
            slopes, speeds, arriving = _rule_backwards(rules, slopes, speeds)
            reached = [name for name, gradient in one.gradient.items() if gradient.requires_grad]
            inputs = [one.values[name] for name in reached] if number else []
            found = torch.autograd.grad([one.gradient[name] for name in reached], [*inputs, *nets],
                                        [arriving[name] for name in reached], allow_unused=True) if reached else ()
            for name, slope in zip(reached if number else (), found, strict=False):
                slopes[name] = slopes[name] if slope is None else slopes[name] + slope
            total = [one if other is None else other if one is None else one + other
                     for one, other in zip_longest(total, found[len(inputs):])]
        return total

    @staticmethod
    def _rules(step: Step) -> Rules:
        """SGD's settings for each parameter, by name."""
        groups = {id(p): group for group in step.optimizer.param_groups for p in group["params"]}
        return {name: groups[id(p)] for name, p in step.method.named_parameters() if id(p) in groups}

    def _gradient(self, step: Step, values: Values, terms: frozenset[str], *, differentiable: bool = False) -> Values:
        """Gradient of the weighted terms at other parameters, by name; absent where they do not reach."""
        assert step.weights is not None
        passes = Passes(step.method)
        losses = passes.losses(passes.again(step), values, terms)
        weights = dict(zip(step.method.process.names, step.weights, strict=True))
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        found = torch.autograd.grad(total, list(values.values()), create_graph=differentiable, allow_unused=True)
        return {name: gradient for name, gradient in zip(values, found, strict=True) if gradient is not None}

    def state_dict(self) -> dict[str, Any]:
        return {"nets": self.nets.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nets.load_state_dict(state["nets"])
        self.optimizer.load_state_dict(state["optimizer"])


def _leaves(values: Values) -> Values:
    return {name: x.detach().requires_grad_() for name, x in values.items()}


def _rule(rules: Rules, values: Values, velocities: Values, gradients: Values) -> tuple[Values, Values]:
    """Parameters and velocities one step of SGD later; one that has no gradient moves on as well."""
    moved, sped = {}, {}
    for name, value in values.items():
        rule = rules[name]
        gradient = rule["weight_decay"] * value
        if name in gradients:
            gradient = gradient + gradients[name].detach()
        sped[name] = rule["momentum"] * velocities[name] + gradient
        ahead = gradient + rule["momentum"] * sped[name] if rule["nesterov"] else sped[name]
        moved[name] = value - rule["lr"] * ahead
    return moved, sped


def _rule_backwards(rules: Rules, slopes: Values, speeds: Values) -> tuple[Values, Values, Values]:
    """Slopes of values, velocities and gradients before a step of SGD, from those of values and velocities after it.

    What values owe to it through their gradient comes on top.
    """
    values, velocities, gradients = {}, {}, {}
    for name, slope in slopes.items():
        rule = rules[name]
        ahead = -rule["lr"] * slope
        speed = (rule["momentum"] if rule["nesterov"] else 1.0) * ahead
        if name in speeds:
            speed = speed + speeds[name]
        gradients[name] = speed + ahead if rule["nesterov"] else speed
        velocities[name] = rule["momentum"] * speed
        values[name] = slope + rule["weight_decay"] * gradients[name]
    return values, velocities, gradients
