"""Means of what a step measured, summed on the device and fetched late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck import ranks


class Averages:
    """Running means by name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one step's values; nothing waits for the device."""
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The means since the last reset, over all ranks; waits for the device."""
        if not self._sums:
            return {}
        (sums,) = ranks.mean_over_ranks([torch.stack([s.double() for s in self._sums.values()])])
        assert sums is not None
        return {name: s / self._counts[name] for name, s in zip(self._sums, sums.tolist(), strict=True)}

    def reset(self) -> None:
        """Forget everything."""
        self._sums, self._counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._sums = {name: s.to(device) for name, s in state["sums"].items()}
        self._counts = dict(state["counts"])
