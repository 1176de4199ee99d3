"""A frozen network whose outputs come from a cache: what is not stored yet is computed, and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from limbeck import ranks
from limbeck.cache.store import Cache
from limbeck.members import Frozen, Network
from limbeck.seen import Outputs, Seen


class Remembered(Frozen):
    """A frozen network that looks its outputs up by `Batch.view_ids`; where views are not counted it runs.

    What it computes goes through the cache's row and back, so that a step sees the same whether it was stored before or
    not. The network itself stays where it was, device and all, until it is needed.

    Args:
        network: The network.
        cache: Of its outputs.
    """

    def __init__(self, network: Network, cache: Cache):
        super().__init__(network)
        network.tap(cache.row.shapes)
        self.cache = cache
        self.asked, self.found = 0, 0
        self._moves: list[Callable[[Tensor], Tensor]] = []
        self._last: tuple[Tensor, Outputs] | None = None  # of a step: it may take several turns

    def forward(self, seen: Seen) -> Outputs:
        ids = seen.batch.view_ids
        if ids is None:
            return self.computed(seen)
        if self._last is None or self._last[0] is not ids:
            with torch.no_grad():
                outputs = self.cache.row.decode(self._rows(seen, ids))
            self._last = ids, {tap: x.to(seen.batch.images.dtype) for tap, x in outputs.items()}
        return self._last[1]

    def _rows(self, seen: Seen, ids: Tensor) -> Tensor:
        """The batch's rows, uint8 (N, size), on its device."""
        positions, device = self.cache.find(ids), seen.batch.images.device
        missing = (positions < 0).nonzero()[:, 0]
        self.asked, self.found = self.asked + len(ids), self.found + len(ids) - len(missing)
        if not len(missing):
            return _sent(self.cache.read(positions), device)
        computed = self._store(seen, ids, missing)
        if len(missing) == len(ids):
            return computed
        present = (positions >= 0).nonzero()[:, 0]
        rows = torch.empty(len(ids), self.cache.row.size, dtype=torch.uint8, device=device)
        rows[_sent(missing, device)] = computed
        rows[_sent(present, device)] = _sent(self.cache.read(positions[present]), device)
        return rows

    def _store(self, seen: Seen, ids: Tensor, missing: Tensor) -> Tensor:
        """Rows of those that are missing, computed now."""
        batch = seen.batch
        if len(missing) < len(ids):
            here = _sent(missing, batch.images.device)
            batch = replace(batch, images=batch.images[here], index=batch.index[here], targets=None, views=())
        rows = self.cache.row.encode(self.computed(Seen(batch, seen.clock, {})))
        self.cache.add(ids[missing], rows)
        return rows

    def computed(self, seen: Seen) -> Outputs:
        """What the network itself says of the images; it goes to its device first."""
        for move in self._moves:
            self.network._apply(move)
        self._moves = []
        return super().forward(seen)

    def _apply(self, fn: Any, recurse: bool = True) -> Remembered:
        """Remember where the network is to go; it goes there when it is to compute something."""
        self._moves.append(fn)
        return self


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on a device that nobody waits for."""
    return tensor if device.type == "cpu" else (
        tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def keep(frozen: Mapping[str, Frozen]) -> None:
    """Put on disk whatever was computed so far; before a checkpoint, which relies on it."""
    for cache in _caches(frozen):
        cache.flush()


def turn_over(frozen: Mapping[str, Frozen], device: torch.device) -> dict[str, float]:
    """After a pass over the data: every rank sees what all stored.

    Returns:
        Name -> share of what was asked for that was found, over all ranks, since the last call.
    """
    keep(frozen)
    shares: dict[str, float] = {}
    for name, network in frozen.items():
        if isinstance(network, Remembered):
            counts = torch.tensor([network.found, network.asked], dtype=torch.float64, device=device)
            found, asked = ranks.sum_over_ranks(counts).tolist()  # who gets past here knows that all have written
            shares |= {name: found / asked} if asked else {}
            network.asked = network.found = 0
    for cache in _caches(frozen):
        cache.refresh()
    return shares


def _caches(frozen: Mapping[str, Frozen]) -> list[Cache]:
    return [network.cache for network in frozen.values() if isinstance(network, Remembered)]
