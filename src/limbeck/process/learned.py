"""Weights under search, over any method's own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from limbeck.process.normalisers import normaliser
from limbeck.process.schedules import Process
from limbeck.seen import Clock


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
