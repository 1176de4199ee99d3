"""Strong augmentation of whole batches: two of fourteen operations an image, then a patch cut out (FixMatch).

Every operation is computed for the whole batch and taken where it was drawn, so that nothing waits for the device. Six
of them change a pixel by its value alone and are one table of 256 levels; five move pixels and are one affine map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.augment import Augmentation

OPERATIONS = ("autocontrast", "brightness", "color", "contrast", "equalize", "identity", "posterize", "rotate",
              "sharpness", "shear-x", "shear-y", "solarize", "translate-x", "translate-y")
ROUNDS = 2
FACTOR = (0.05, 0.95)       # of brightness, color, contrast and sharpness: how much of the image is left
DEGREES = 30.0              # of a rotation, at most, either way
SHARE = 0.3                 # of a shear, and of the side in a shift, likewise
PATCH = 0.5                 # of the side, at most, that is cut out
FILL = (125.0, 123.0, 114.0)


@dataclass(frozen=True)
class Strong:
    """The images' own augmentation, drawn anew, then `ROUNDS` operations and a patch cut out.

    Values are rounded to 256 levels before and after each operation, as Pillow does.

    Attributes:
        first: What comes before.

    Source: RandAugment as in FixMatch (Sohn et al., NeurIPS 2020, arXiv:2001.07685) with the ranges, and the colour of
    the patch, that MLKD and much semi-supervised code have.
    """

    first: Augmentation

    @property
    def columns(self) -> int:
        """How many random numbers an image takes."""
        return self.first.columns + 2 * ROUNDS + 3

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers for so many images, float32 (N, K)."""
        return torch.rand(images, self.columns, generator=generator)

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Changed images.

        Args:
            pixels: uint8 (N, 3, H, W).
            draws: Their random numbers, (N, K), on the same device.

        Returns:
            float32 (N, 3, H, W) in [0, 1], contiguous.
        """
        own, rounds, patch = draws.split([self.first.columns, 2 * ROUNDS, 3], dim=1)
        levels = self.first(pixels, own).mul_(255).round_()
        for kind, amount in zip(rounds[:, ::2].unbind(1), rounds[:, 1::2].unbind(1), strict=True):
            levels = operate(levels, (kind * len(OPERATIONS)).long(), amount)
        return cut_out(levels, patch).div_(255)


def operate(levels: Tensor, kind: Tensor, amount: Tensor) -> Tensor:
    """One operation on each image.

    Args:
        levels: Whole numbers from 0 to 255, float32 (N, 3, H, W).
        kind: Which of `OPERATIONS`, (N,), int64.
        amount: How much, in [0, 1), (N,): from the lower end of its range to the upper; of a rotation, shear or shift
            0.5 is none. Numbers beyond go beyond the range.
    """
    drawn = _Drawn(kind[:, None, None], amount[:, None, None])
    levels = _table(levels, drawn).gather(2, levels.flatten(2).long()).view_as(levels)
    levels = torch.where(drawn.of("color")[..., None], _blend(_grey(levels), levels, drawn.factor[..., None]), levels)
    smooth = _blend(_smooth(levels), levels, drawn.factor[..., None])
    return _moved(torch.where(drawn.of("sharpness")[..., None], smooth, levels), drawn)


class _Drawn(NamedTuple):
    """What each image was given; (N, 1, 1) each."""

    kind: Tensor
    amount: Tensor

    def of(self, operation: str) -> Tensor:
        """Whether it is this one."""
        return self.kind == OPERATIONS.index(operation)

    @property
    def factor(self) -> Tensor:
        return FACTOR[0] + (FACTOR[1] - FACTOR[0]) * self.amount

    def signed(self, operation: str, most: float) -> Tensor:
        """From -most to most, 0 for images with another operation."""
        return torch.where(self.of(operation), most * (2 * self.amount - 1), 0.0)


def _blend(plain: Tensor, levels: Tensor, factor: Tensor) -> Tensor:
    """So much of the image, the rest of something plainer; beyond 1, away from it."""
    return (plain + factor * (levels - plain)).floor().clamp(0, 255)


def _grey(levels: Tensor) -> Tensor:
    """Brightness by the weights of ITU-R 601, (N, 1, H, W); whole numbers below 2^24 throughout, exact in float32."""
    red, green, blue = levels.unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()[:, None]


def _smooth(levels: Tensor) -> Tensor:
    """Each inner pixel's weighted mean with its eight neighbours, itself five times."""
    kernel = torch.ones(1, 1, 3, 3, device=levels.device)
    kernel[..., 1, 1] = 5
    smooth = levels.clone()
    inner = F.conv2d(levels.flatten(0, 1)[:, None], kernel).unflatten(0, levels.shape[:2])[:, :, 0]
    smooth[..., 1:-1, 1:-1] = (inner / 13 + 0.5).floor()
    return smooth


def _table(levels: Tensor, drawn: _Drawn) -> Tensor:
    """What becomes of each level, (N, 3, 256)."""
    level = torch.arange(256.0, device=levels.device)
    low, high = levels.amin((2, 3))[..., None], levels.amax((2, 3))[..., None]          # (N, 3, 1)
    mean = (_grey(levels).mean(3).mean(2)[..., None] + 0.5).floor()                    # (N, 1, 1)
    step = 2 ** (4 - (4 * drawn.amount).floor())                                     # 4 to 7 bits are kept
    tables = {
        "autocontrast": torch.where(high > low, ((level - low) * 255 / (high - low)).floor().clamp(0, 255), level),
        "brightness": _blend(torch.zeros_like(level), level, drawn.factor),
        "contrast": _blend(mean, level, drawn.factor),
        "equalize": _equalised(levels, high),
        "posterize": (level / step).floor() * step,
        "solarize": torch.where(level < 256 * drawn.amount, level, 255 - level),
    }
    result = level.expand(*levels.shape[:2], 256)
    for operation, table in tables.items():
        result = torch.where(drawn.of(operation), table, result)
    return result


def _equalised(levels: Tensor, high: Tensor) -> Tensor:
    """The table that spreads levels evenly, by how many of a channel's pixels are below each; (N, 3, 256)."""
    channels = levels.flatten(0, 1).flatten(1).long()                                  # (3N, HW)
    channels = channels + 256 * torch.arange(len(channels), device=levels.device)[:, None]
    counts = torch.zeros(256 * len(channels), dtype=torch.int64, device=levels.device)
    counts = counts.scatter_add_(0, channels.flatten(), torch.ones_like(channels).flatten())
    counts = counts.view(*levels.shape[:2], 256)
    below = counts.cumsum(2) - counts
    step = below.gather(2, high.long()) // 255
    spread = ((step // 2 + below) // step.clamp_min(1)).clamp_max(255)
    return torch.where(step > 0, spread, torch.arange(256, device=levels.device)).to(levels.dtype)


def _moved(levels: Tensor, drawn: _Drawn) -> Tensor:
    """Rotated, sheared or shifted; each place takes the pixel that it falls on, and black where there is none."""
    height, width = levels.shape[2:]
    x, y = torch.arange(width, device=levels.device) + 0.5, torch.arange(height, device=levels.device)[:, None] + 0.5
    angle = drawn.signed("rotate", math.radians(DEGREES))
    across, down = x - width / 2, y - height / 2
    from_x = angle.cos() * across - angle.sin() * down + width / 2                     # (N, H, W)
    from_x = from_x + drawn.signed("shear-x", SHARE) * y + drawn.signed("translate-x", SHARE) * width
    from_y = angle.sin() * across + angle.cos() * down + height / 2
    from_y = from_y + drawn.signed("shear-y", SHARE) * x + drawn.signed("translate-y", SHARE) * height
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    place = from_y.floor().clamp(0, height - 1) * width + from_x.floor().clamp(0, width - 1)
    taken = levels.flatten(2).gather(2, place.long().flatten(1)[:, None].expand(-1, 3, -1)).view_as(levels)
    return torch.where(inside[:, None], taken, 0.0)


def cut_out(levels: Tensor, draws: Tensor) -> Tensor:
    """A square patch of each image filled with one colour.

    Args:
        levels: From 0 to 255, float32 (N, 3, H, W).
        draws: Three uniform numbers an image, (N, 3): side, and row and column of the middle.
    """
    height, width = levels.shape[2:]
    side = PATCH * width * draws[:, :1]                                                # (N, 1)
    top = (draws[:, 1:2] * height - side / 2).clamp_min(0).floor()
    left = (draws[:, 2:] * width - side / 2).clamp_min(0).floor()
    y, x = torch.arange(height, device=levels.device), torch.arange(width, device=levels.device)
    rows, columns = (y >= top) & (y <= top + side), (x >= left) & (x <= left + side)   # (N, H), (N, W)
    patch = (rows[:, :, None] & columns[:, None])[:, None]
    return torch.where(patch, torch.tensor(FILL).to(levels.device, non_blocking=True)[:, None, None], levels)
