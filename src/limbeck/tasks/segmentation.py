"""Segmentation: a class for each pixel; cross-entropy, mean intersection over union and pixel accuracy in percent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.tasks import Better
from limbeck.tasks.maps import at_size, palette, same_places

VOID = 255
"""The label of pixels that do not count."""


@dataclass(frozen=True)
class Segmentation:
    """One class for each pixel.

    Attributes:
        classes: How many there are.
        ignore: The label of pixels that do not count, in the loss and in the measures.
        names: What the classes are called, as far as that is known; colours follow it.
    """

    classes: int
    ignore: int = VOID
    names: tuple[str, ...] = ()
    name = "segmentation"
    score = "miou"
    better: ClassVar[Better] = "higher"

    def outputs(self, classes: int) -> int:
        return classes

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, in nats, averaged over the pixels of the batch that count; 0 where none does.

        Args:
            output: Logits, (N, C, h, w).
            targets: Classes, (N, H, W), int64.
        """
        return _each_ce(output, targets, self.ignore).sum() / self.valid(targets).sum().clamp_min(1)

    def valid(self, targets: Tensor) -> Tensor:
        return targets != self.ignore

    def meter(self) -> SegmentationMeter:
        return SegmentationMeter(self.classes, self.ignore)

    def guess(self, classes: int, targets: Iterable[Tensor], images: int) -> float:
        """1 / C, in percent: above what any constant or random answer can have."""
        return 100 / classes

    def predict(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """The likeliest class of each pixel, (N, H, W), int64; logits are brought to the size, not classes."""
        return at_size(output, size).argmax(1)

    def draw(self, images: Tensor, maps: Tensor) -> Tensor:
        """Every class in its colour, pixels that do not count black."""
        maps = same_places(maps, images.shape[2:])
        counts = (maps != self.ignore)[:, None]
        colors = palette(self.classes, self.names).to(maps.device)[
            maps.long().clamp(0, self.classes - 1)]  # (N, H, W, 3)
        return colors.permute(0, 3, 1, 2) * counts


class SegmentationMeter:
    """The confusion matrix, rows true classes, and the summed cross-entropy.

    The intersection over union of a class is right / (right + missed + wrongly taken for it), over all pixels of all
    images together; mIoU is the mean over the classes that occur in targets or predictions, as torchmetrics'
    `MulticlassJaccardIndex(average="macro")` has it. Counts are exact up to 2^53 pixels.

    Args:
        classes: How many there are.
        ignore: The label of pixels that do not count.
    """

    def __init__(self, classes: int, ignore: int):
        self.classes, self.ignore = classes, ignore
        self.sums = torch.zeros(classes * classes + 1, dtype=torch.float64)

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            output: Logits, (N, C, h, w).
            targets: Classes, (N, H, W), int64.
        """
        output = at_size(output, targets.shape[1:])
        counts = targets != self.ignore
        pairs = targets[counts] * self.classes + output.argmax(1)[counts]
        confusion = torch.bincount(pairs, minlength=self.classes**2).double()
        loss = _each_ce(output.float(), targets, self.ignore).double().sum()
        self.sums = self.sums.to(output.device) + torch.cat([confusion, loss[None]])

    def result(self) -> dict[str, float]:
        confusion, loss = self.sums[:-1].view(self.classes, self.classes).cpu(), self.sums[-1].item()
        right, either = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
        occurs, pixels = either > 0, confusion.sum().clamp_min(1).item()
        iou = right[occurs] / either[occurs]
        return {"miou": 100 * iou.mean().item() if len(iou) else 0.0,
                "pixel_accuracy": 100 * right.sum().item() / pixels, "cross_entropy": loss / pixels}


def _each_ce(output: Tensor, targets: Tensor, ignore: int) -> Tensor:
    """Cross-entropy of each pixel, (N, H, W); 0 where it does not count."""
    return F.cross_entropy(at_size(output, targets.shape[1:]), targets, ignore_index=ignore, reduction="none")
