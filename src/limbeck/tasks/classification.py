"""Classification: cross-entropy, and top-1 and top-5 accuracy in percent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.tasks import Better


@dataclass(frozen=True)
class Classification:
    """One class for each image.

    Attributes:
        label_smoothing: Share of each target spread evenly over all classes.
    """

    label_smoothing: float = 0.0
    name = "classification"
    score = "top1"
    better: ClassVar[Better] = "higher"

    def outputs(self, classes: int) -> int:
        return classes

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, in nats, averaged over the batch.

        Args:
            output: Logits, (N, C).
            targets: Classes (N,), int64, or class probabilities (N, C).
        """
        return F.cross_entropy(output, targets, label_smoothing=self.label_smoothing)

    def valid(self, targets: Tensor) -> None:
        return None

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter()

    def guess(self, classes: int, targets: Iterable[Tensor], images: int) -> float:
        """Three standard deviations above 1 / C, in percent."""
        chance = 1 / classes
        return 100 * (chance + 3 * math.sqrt(chance * (1 - chance) / images))

    def predict(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """The likeliest class of each image, (N,), int64."""
        return output.argmax(1)

    def draw(self, images: Tensor, maps: Tensor) -> Tensor:
        """The images themselves: a class has no picture."""
        return (images[:, :3].clamp(0, 1) * 255).round().to(torch.uint8)


class ClassificationMeter:
    """Counts of right answers and summed losses; sums add over batches and ranks, so results are exact."""

    def __init__(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)  # images, right at 1, right at 5, summed cross-entropy

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            output: Logits, (N, C).
            targets: Classes, (N,), int64.
        """
        ranked = output.topk(min(5, output.shape[1]), dim=1).indices.eq(targets[:, None])  # (N, 5)
        loss = F.cross_entropy(output.float(), targets, reduction="sum")
        counts = torch.stack([torch.as_tensor(float(len(targets)), device=output.device),
                              ranked[:, 0].sum().float(), ranked.sum().float(), loss])
        self.sums = self.sums.to(output.device) + counts.double()

    def result(self) -> dict[str, float]:
        images, top1, top5, loss = self.sums.tolist()
        return {"top1": 100 * top1 / images, "top5": 100 * top5 / images, "cross_entropy": loss / images}
