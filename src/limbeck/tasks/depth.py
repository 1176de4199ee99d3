"""Depth: metres for each pixel; masked L1, and RMSE, MAE, REL and the shares within a factor 1.25, 1.25² and 1.25³."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from limbeck.tasks import Better
from limbeck.tasks.maps import at_size, same_places, shades

MEASURES = ("rmse", "mae", "rel", "delta1", "delta2", "delta3")
_PERCENT = ("delta1", "delta2", "delta3")


@dataclass(frozen=True)
class Depth:
    """One distance for each pixel, in metres; where the target is 0 there was no reading, and nothing counts.

    Attributes:
        farthest: What pictures show in the last colour, in metres; it plays no part in loss and measures.
    """

    farthest: float = 10.0
    name = "depth"
    score = "rmse"
    better: ClassVar[Better] = "lower"

    def outputs(self, classes: int) -> int:
        return 1

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Absolute error in metres, averaged over the pixels of the batch that count; 0 where none does.

        Args:
            output: Depth in metres, (N, 1, h, w).
            targets: Depth in metres, (N, H, W), float32; 0 where there is none.
        """
        valid = self.valid(targets)
        error = (_map(output, targets.shape[1:]) - targets).abs()
        return torch.where(valid, error, 0.0).sum() / valid.sum().clamp_min(1)

    def valid(self, targets: Tensor) -> Tensor:
        return targets > 0

    def meter(self) -> DepthMeter:
        return DepthMeter()

    def guess(self, classes: int, targets: Iterable[Tensor], images: int) -> float:
        """RMSE of the mean depth of all of them, taken for every pixel."""
        known = [one[one > 0].double() for batch in targets for one in batch if (one > 0).any()]
        rows = torch.tensor([(len(one), one.mean(), one.var(correction=0)) for one in known]).view(-1, 3)
        pixels, means, variances = rows.double().unbind(1)
        mean = (pixels * means).sum() / pixels.sum().clamp_min(1)
        return (variances + (means - mean)**2).sqrt().sum().item() / max(1, len(rows))

    def predict(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """Depth in metres, (N, H, W)."""
        return _map(output, size)

    def draw(self, images: Tensor, maps: Tensor) -> Tensor:
        """From bright, near, to dark, `farthest` metres away or more; black where there is no depth above 0."""
        maps = same_places(maps, images.shape[2:])
        place = (maps / self.farthest * 255).round().clamp(0, 255).long()
        return shades().to(maps.device)[place].permute(0, 3, 1, 2) * (maps > 0)[:, None]


class DepthMeter:
    """Each image's measures, summed over images, and sums over all pixels that count, whatever their image.

    Over an image's pixels with target y > 0, p the prediction,
        rmse = sqrt(mean (p - y)^2),  mae = mean |p - y|,  rel = mean |p - y| / y,
        delta_k = 100 * share with max(p / y, y / p) < 1.25^k, where p > 0.
    `rmse` and the others are means over images, as sparse-to-dense takes them at batch 1; an image without a pixel that
    counts is left out. `pixel_rmse` and so on are over all pixels together. The two agree where all images have as many
    pixels, but for the RMSE: its mean over images is never above the root over pixels.

    Source: Ma and Karaman, Sparse-to-Dense, ICRA 2018, arXiv:1709.07492. The authors' code counts a pixel with p < 0 as
    right in every delta.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(2 * (1 + len(MEASURES)), dtype=torch.float64)

    def update(self, output: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            output: Depth in metres, (N, 1, h, w).
            targets: Depth in metres, (N, H, W); 0 where there is none.
        """
        p, y = _map(output, targets.shape[1:]).double().flatten(1), targets.double().flatten(1)
        valid = y > 0
        error, y = (p - y).abs(), torch.where(valid, y, 1.0)
        ratio = torch.where(p > 0, torch.maximum(p / y, y / p), torch.inf)
        each = torch.stack([error**2, error, error / y, *(ratio < 1.25**k for k in (1, 2, 3))])    # (6, N, HW)
        totals, pixels = torch.where(valid, each, 0.0).sum(2), valid.sum(1)                       # (6, N), (N,)
        means = totals / pixels.clamp_min(1)
        means[0].sqrt_()
        both = [(pixels > 0).sum()[None], means.sum(1), pixels.sum()[None], totals.sum(1)]
        self.sums = self.sums.to(output.device) + torch.cat(both)

    def result(self) -> dict[str, float]:
        (images, *means), (pixels, *totals) = self.sums.view(2, -1).tolist()
        totals = [total / max(1.0, pixels) for total in totals]
        totals[0] = totals[0]**0.5
        over = {"": [mean / max(1.0, images) for mean in means], "pixel_": totals}
        return {prefix + name: value * (100 if name in _PERCENT else 1)
                for prefix, values in over.items() for name, value in zip(MEASURES, values, strict=True)}


def _map(output: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    if output.ndim == 4 and output.shape[1] != 1:
        raise ValueError(f"depth needs outputs (N, 1, h, w); got {tuple(output.shape)}. Give a network of one channel")
    return at_size(output, size)[:, 0]
