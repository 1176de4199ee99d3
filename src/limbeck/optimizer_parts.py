"""Optimisers of several kinds, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class Optimizers:
    """Optimisers of several kinds, as one: each owner belongs to one of them, and to one of each turn that has its own.

    Attributes:
        parts: The optimisers.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Step every part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every part's gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def step_turn(optimizer: torch.optim.Optimizer | Optimizers, turn: str | None) -> None:
    """Step the parts of a turn that has an optimiser of its own, by that one's name; None steps the ordinary parts."""
    for part in parts(optimizer):
        if part.param_groups[0].get("turn") == turn:
            part.step()


def parts(optimizer: torch.optim.Optimizer | Optimizers) -> tuple[torch.optim.Optimizer, ...]:
    """The single optimisers in one that may be of several kinds."""
    return (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else optimizer.parts
