"""What supervises, and how it is measured: one file a task."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Task(Protocol):
    """What a network is trained for."""

    name: str
    score: str
    """The measure that ranks networks, a key of what `Meter.result` returns; higher is better."""

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The supervised loss, a scalar averaged over the batch."""
        ...

    def meter(self) -> Meter:
        """A fresh accumulator of this task's measures."""
        ...


class Meter(Protocol):
    """Sums over batches, and over ranks, from which the exact measures follow."""

    sums: Tensor

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        ...

    def result(self) -> dict[str, float]:
        """The measures over all that was added."""
        ...
