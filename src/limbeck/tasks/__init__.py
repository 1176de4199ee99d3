"""What supervises, how it is measured and what it looks like: one file a task."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, Protocol

from torch import Tensor

Better = Literal["higher", "lower"]


class Task(Protocol):
    """What a network is trained for.

    Outputs are what a network answers: logits (N, C) for classes; (N, C, h, w) of any size for dense tasks, whose
    targets are (N, H, W).
    """

    @property
    def name(self) -> str:
        """`classification`, `segmentation` or `depth`."""
        ...

    @property
    def score(self) -> str:
        """The measure that ranks networks, a key of what `Meter.result` returns."""
        ...

    @property
    def better(self) -> Better:
        """Which way that measure is better."""
        ...

    def outputs(self, classes: int) -> int:
        """Channels that a network must answer with, for data of so many classes."""
        ...

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The supervised loss, a scalar averaged over what counts in the batch; dense outputs are brought to the
        targets' size, bilinearly."""
        ...

    def valid(self, targets: Tensor) -> Tensor | None:
        """Which pixels count, (N, H, W) bool; None where everything does."""
        ...

    def meter(self) -> Meter:
        """A fresh accumulator of this task's measures."""
        ...

    def guess(self, classes: int, targets: Iterable[Tensor], images: int) -> float:
        """The best score that guessing can be hoped to have: what a network must beat to be worth listening to.

        Args:
            classes: How many there are.
            targets: Of some images, in batches; only a task that needs them looks.
            images: How many these are.
        """
        ...

    def predict(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """What an output says: classes (N,), a label map (N, H, W), both int64, or depth in metres (N, H, W).

        Args:
            output: What a network answered.
            size: Height and width of the map; of no meaning to classes.
        """
        ...

    def draw(self, images: Tensor, maps: Tensor) -> Tensor:
        """A picture of predictions or of targets, uint8 RGB (N, 3, H, W); what does not count is black.

        Args:
            images: What was looked at, (N, C, H, W) in [0, 1]; dense tasks take only its size.
            maps: What `predict` returned, or targets.
        """
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


def beats(score: float, other: float, better: Better) -> bool:
    """Whether a score is better than another."""
    return score > other if better == "higher" else score < other


def worst(better: Better) -> float:
    """A score that every other beats."""
    return -math.inf if better == "higher" else math.inf
