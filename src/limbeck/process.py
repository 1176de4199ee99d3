"""How hard each term pulls, at every moment of training.

A process gives every term its weight by the clock: `Scheduled` by a formula, `Learned` by a search, `Replayed` by what
a search recorded. The two latter multiply what the method itself schedules, so that any method's terms can be searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from limbeck.errors import Mistake, nearest
from limbeck.recorded import Recorded
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


def biased_softmax(raw: Tensor) -> Tensor:
    """exp(a_i) / (sum_j exp(a_j) + e): a softmax with one more logit, of value 1, that is dropped (DistPro, Eq. 2)."""
    return torch.softmax(torch.cat([raw, raw.new_ones(*raw.shape[:-1], 1)], dim=-1), dim=-1)[..., :-1]


def softmax(raw: Tensor) -> Tensor:
    """exp(a_i) / sum_j exp(a_j)."""
    return torch.softmax(raw, dim=-1)


def biased_l1(raw: Tensor) -> Tensor:
    """|a_i| / (sum_j |a_j| + 1); absolute values, as the released code has them, keep weights from turning negative."""
    return raw.abs() / (raw.abs().sum(dim=-1, keepdim=True) + 1)


def l1(raw: Tensor) -> Tensor:
    """|a_i| / sum_j |a_j|, with 1e-12 in the denominator against all zeros."""
    return raw.abs() / (raw.abs().sum(dim=-1, keepdim=True) + 1e-12)


def sigmoid(raw: Tensor) -> Tensor:
    """1 / (1 + exp(-a_i)), each for itself."""
    return torch.sigmoid(raw)


NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "biased-softmax": biased_softmax, "softmax": softmax, "biased-l1": biased_l1, "l1": l1, "sigmoid": sigmoid}
"""Raw weights (..., L) -> weights (..., L), all at least 0; DistPro's Table 7 compares them."""


def normaliser(name: str) -> Callable[[Tensor], Tensor]:
    """A normaliser by name.

    Raises:
        Mistake: If there is none of that name.
    """
    if name not in NORMALISERS:
        raise Mistake(f"there is no normaliser '{name}'; {nearest(name, NORMALISERS)}")
    return NORMALISERS[name]


class Learned:
    """Weights under search: base weight x scale x normalise(raw) for the searched terms, base weight for the others.

    Args:
        base: The method's own process.
        searched: Names of the terms whose raw weights are learned.
        normalise: Name of the normaliser.
        scale: Factor on the normalised weights; None is the number of searched terms, so that at the start each term
            weighs about what it does in the method.
        start: Initial raw weight of every term.
        threshold: Drop terms at or below this raw weight during the search too; None computes all.
        refresh: With a threshold, compute all terms again every so many epochs, so that a dropped one can come back.
    """

    def __init__(self, base: Process, searched: Sequence[str], *, normalise: str = "biased-softmax",
                 scale: float | None = None, start: float = 1.0, threshold: float | None = None, refresh: int = 5):
        self.names, self.base, self.searched = base.names, base, tuple(searched)
        self.normaliser, self.normalise = normalise, normaliser(normalise)
        self.scale = float(len(self.searched)) if scale is None else scale
        self.threshold, self.refresh = threshold, refresh
        self.raw = torch.full((len(self.searched),), start)
        self.positions = torch.tensor([self.names.index(name) for name in self.searched])
        self._active: tuple[int, frozenset[str]] | None = None

    @property
    def can_vanish(self) -> bool:
        """Whether a computed term's weight can be exactly 0."""
        return self.normaliser in ("l1", "biased-l1") or getattr(self.base, "can_vanish", False)

    def active(self, clock: Clock) -> frozenset[str]:
        computed = self.base.active(clock)
        if self.threshold is None or clock.epoch % self.refresh == 0:
            return computed
        if self._active is None or self._active[0] != clock.epoch:
            low = {n for n, a in zip(self.searched, self.raw.tolist(), strict=True) if a <= self.threshold}
            self._active = (clock.epoch, computed - low)
        return self._active[1]

    def weights(self, clock: Clock) -> Tensor:
        weights = self.base.weights(clock).to(self.raw.device, non_blocking=True, copy=True)
        weights[self.positions] *= self.scale * self.normalise(self.raw).to(weights.dtype)
        return weights

    def raw_slope(self, slope: Tensor, clock: Clock) -> Tensor:
        """Slope of the raw weights from that of the searched terms' weights: the chain rule through the normaliser.

        Args:
            slope: d(loss) / d(weight) of the searched terms, in the order of `searched`; (L,).
            clock: The step that the slope belongs to.
        """
        factor = self.scale * self.base.weights(clock).to(slope, non_blocking=True)[self.positions]
        with torch.enable_grad():
            raw = self.raw.detach().clone().to(slope).requires_grad_()
            (result,) = torch.autograd.grad(self.normalise(raw), raw, factor * slope)
        return result

    def to(self, device: torch.device) -> Learned:
        """Keep the raw weights on a device, so that a step never waits for them."""
        self.raw, self.positions = self.raw.to(device), self.positions.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Raw weights, and which terms are active in the present epoch."""
        active = None if self._active is None else [self._active[0], sorted(self._active[1])]
        return {"raw": self.raw.clone(), "active": active}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.raw.copy_(state["raw"])
        self._active = None if state["active"] is None else (state["active"][0], frozenset(state["active"][1]))


class Replayed:
    """A recorded process, stretched to this run's length.

    At step t of T the record is read at progress t / (T - 1); between two rows the raw weights (or the normalised ones)
    are interpolated linearly, then normalised, then clipped.

    Args:
        base: The method's own process.
        recorded: What a search recorded. Terms of it that the method lacks still count in the normaliser.
        absent: Terms of the method that the record lacks and that are to be left out; others keep their base weight.
        use: `whole`: the process; `final`: its last row throughout; `equal`: every term 1 / L throughout, unclipped.
        scale: Factor on the normalised weights; None is the number of recorded terms.
        interpolate: What is interpolated: `raw` or `weights`.
        granularity: Weights change every `step`, or only with each `epoch` (read at the epoch's first step).
        threshold: Terms whose raw weight is at or below it are clipped; None clips none.
        clip: `mask`: drop them, the others as they are; `renormalise`: drop them, the others keep the total; `zero`:
            their raw weight becomes 0; `floor`: it becomes the threshold. The latter two still compute the term.
        warp: Points (progress of this run, progress of the search), piecewise linear; None is the straight stretch.
    """

    def __init__(self, base: Process, recorded: Recorded, *, use: Literal["whole", "final", "equal"] = "whole",
                 scale: float | None = None, interpolate: Literal["raw", "weights"] = "raw",
                 granularity: Literal["step", "epoch"] = "step", threshold: float | None = 0.5,
                 clip: Literal["mask", "renormalise", "zero", "floor"] = "mask",
                 warp: Sequence[tuple[float, float]] | None = None, absent: Collection[str] = ()):
        self.names, self.base, self.recorded, self.absent = base.names, base, recorded, frozenset(absent)
        self.use, self.interpolate, self.granularity, self.clip = use, interpolate, granularity, clip
        self.threshold = None if use == "equal" else threshold
        self.scale = float(len(recorded.names)) if scale is None else scale
        self.warp = warp
        self._normalise = normaliser(recorded.normaliser)
        self._rows = recorded.raw[-1:] if use == "final" else recorded.raw
        shared = [(i, self.names.index(name)) for i, name in enumerate(recorded.names) if name in self.names]
        self._theirs, self._positions = (torch.tensor(places) for places in zip(*shared, strict=True))

    def active(self, clock: Clock) -> frozenset[str]:
        computed = self.base.active(clock) - self.absent
        if self.threshold is None or self.clip in ("zero", "floor"):
            return computed
        keep = self._kept(clock)
        return computed - {name for name, kept in zip(self.recorded.names, keep.tolist(), strict=True) if not kept}

    def weights(self, clock: Clock) -> Tensor:
        weights = self.base.weights(clock).clone()
        weights[self._positions] *= self.scale * self.normalised(clock)[self._theirs].to(weights.dtype)
        return weights

    def raw(self, clock: Clock) -> Tensor:
        """Interpolated raw weights of the recorded terms, (L,)."""
        return self._between(clock, lambda raw: raw)

    def normalised(self, clock: Clock) -> Tensor:
        """Weights of the recorded terms after normalising and clipping, (L,)."""
        if self.use == "equal":
            return torch.full((len(self.recorded.names),), 1 / len(self.recorded.names))
        weights = (self._between(clock, self._weighed) if self.interpolate == "weights"
                   else self._weighed(self.raw(clock)))
        if self.threshold is None or self.clip in ("zero", "floor"):
            return weights
        kept = weights * self._kept(clock)
        return kept * (weights.sum() / kept.sum()) if self.clip == "renormalise" and kept.any() else kept

    def _kept(self, clock: Clock) -> Tensor:
        """Which recorded terms are above the threshold at the first step of the epoch, (L,)."""
        return self.raw(clock.at_epoch_start()) > (self.threshold or 0.0)

    def _weighed(self, raw: Tensor) -> Tensor:
        """Normalised weights, raw ones at or below the threshold replaced first where that is how they are clipped."""
        if self.threshold is not None and self.clip in ("zero", "floor"):
            raw = torch.where(raw > self.threshold, raw, 0.0 if self.clip == "zero" else self.threshold)
        return self._normalise(raw)

    def _between(self, clock: Clock, of: Callable[[Tensor], Tensor]) -> Tensor:
        """A function of the rows, between the two nearest."""
        rows = self._rows
        progress = (clock.at_epoch_start() if self.granularity == "epoch" else clock).progress
        place = self._warped(progress) * (len(rows) - 1)
        below = min(math.floor(place), len(rows) - 1)
        part = place - below
        return (1 - part) * of(rows[below]) + part * of(rows[min(below + 1, len(rows) - 1)])

    def _warped(self, progress: float) -> float:
        for (x0, y0), (x1, y1) in pairwise(self.warp or ()):
            if x0 <= progress <= x1:
                return y0 + (y1 - y0) * (progress - x0) / max(x1 - x0, 1e-12)
        return progress
