"""Who is computed at all and how hard each pulls, and processes by formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from limbeck.seen import Clock

Schedule = Callable[[Clock], float]


class Process(Protocol):
    """Who is computed at all, and how much each weighs."""

    names: tuple[str, ...]

    def active(self, clock: Clock) -> frozenset[str]:
        """Terms that are computed; changes at most once an epoch."""
        ...

    def weights(self, clock: Clock) -> Tensor:
        """Every term's weight, in the order of `names`; (len(names),)."""
        ...


def ramp(weight: float, *, over: float = 1 / 12) -> Schedule:
    """From 0 up to `weight` in a straight line over the first part of the run, then constant.

    Args:
        weight: The final weight.
        over: Part of the run's length that the rise takes; a paper's 20 of 240 epochs is 1/12.
    """
    return lambda clock: weight * min(1.0, clock.progress / over) if over else weight


def exponential_ramp(weight: float, *, over: float) -> Schedule:
    """weight * exp(-5 (1 - progress / over)^2) over the first part of the run, then constant (Laine and Aila, 2017).

    Args:
        weight: The final weight.
        over: Part of the run's length that the rise takes; 0 for none.
    """
    return lambda clock: weight * math.exp(-5 * max(0.0, 1 - clock.progress / over) ** 2) if over else weight


class Scheduled:
    """Weights by formula: a constant, or a function of the clock.

    Args:
        weights: Term -> weight. A term with weight 0 throughout an epoch is not computed in it.
    """

    def __init__(self, weights: Mapping[str, float | Schedule]):
        self.names = tuple(weights)
        self._weights = dict(weights)
        self._active: tuple[Clock, frozenset[str]] | None = None

    def _at(self, name: str, clock: Clock) -> float:
        weight = self._weights[name]
        return float(weight(clock)) if callable(weight) else float(weight)

    def active(self, clock: Clock) -> frozenset[str]:
        first = clock.at_epoch_start()
        if self._active is None or self._active[0] != first:
            self._active = (first, frozenset(name for name in self.names if self._ever(name, first)))
        return self._active[1]

    def _ever(self, name: str, first: Clock) -> bool:
        """Whether a term has a weight at any step of the epoch; a constant is asked once."""
        steps = range(first.step, first.step + (first.steps_per_epoch if callable(self._weights[name]) else 1))
        return any(self._at(name, replace(first, step=step)) != 0 for step in steps)

    def weights(self, clock: Clock) -> Tensor:
        return torch.tensor([self._at(name, clock) for name in self.names])


class Blended:
    """Several methods' processes as one; a term that they share has the largest of their weights.

    Args:
        parts: Each method's process, by the method's name.
        places: Method -> what it calls a term -> what the blend calls it.
    """

    def __init__(self, parts: Mapping[str, Process], places: Mapping[str, Mapping[str, str]]):
        self.parts, self.places = dict(parts), places
        own = [places[method][term] for method, part in self.parts.items() for term in part.names]
        self.names = tuple(dict.fromkeys(own))
        self._positions = torch.tensor([self.names.index(name) for name in own])

    def active(self, clock: Clock) -> frozenset[str]:
        return frozenset(self.places[m][term] for m, part in self.parts.items() for term in part.active(clock))

    def weights(self, clock: Clock) -> Tensor:
        own = torch.cat([part.weights(clock) for part in self.parts.values()])
        return torch.zeros(len(self.names), dtype=own.dtype).scatter_reduce(0, self._positions, own, "amax")


class Without:
    """Another process without some of its terms: the others keep their weights.

    Args:
        base: The other process.
        dropped: Names of the terms that are left out.
    """

    def __init__(self, base: Process, dropped: Collection[str]):
        self.base, self.names = base, tuple(name for name in base.names if name not in dropped)
        self._places = torch.tensor([base.names.index(name) for name in self.names])

    def active(self, clock: Clock) -> frozenset[str]:
        return self.base.active(clock) & frozenset(self.names)

    def weights(self, clock: Clock) -> Tensor:
        return self.base.weights(clock)[self._places]
