"""Weights as a search recorded them, stretched to any length."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from limbeck.process.normalisers import normaliser
from limbeck.process.recorded import Recorded
from limbeck.process.schedules import Process
from limbeck.seen import Clock


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
