"""What vision transformers are trained with behind a resized crop: RandAugment and random erasing, of whole batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.data.strong import FACTOR, FILL, OPERATIONS, SHARE, operate

CHOICES = ("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize-add", "color", "contrast",
           "brightness", "sharpness", "shear-x", "shear-y", "translate-x", "translate-y")
LAYERS, CHANCE = 2, 0.5  # operations that each image is offered, and how often each is done
SPREAD = 0.5             # of the magnitude from operation to operation: standard deviation
MOST = 10.0              # the magnitude whose effects the ranges below are those of
ENHANCED, SHIFTED, ADDED = 0.9, 0.45, 110.0
ERASED, ASPECT = (0.02, 1 / 3), (0.3, 3.3)  # of the area, height to width
_STANDS_FOR = {"invert": "solarize", "solarize-add": "identity"}


@dataclass(frozen=True)
class RandAugment:
    """Two of fifteen operations an image, each done every other time; then, of some images, a box of one colour.

    Attributes:
        magnitude: From 0 to 10, how strong operations are on average; None for none.
        erase: Part of the images of which a box is erased.

    Source: Cubuk et al., RandAugment, CVPRW 2020, arXiv:1909.13719, in timm's form `rand-m9-mstd0.5-inc1` that DeiT
    uses, and Zhong et al., Random Erasing, AAAI 2020, arXiv:1708.04896. In timm what has moved is interpolated, and
    laid on the mean colour; here pixels go to their nearest place, on black. Its boxes hold noise (`pixel`), and one
    too large is drawn anew; here they have the mean colour of photographs, and are cut to the image.
    """

    magnitude: float | None = 9.0
    erase: float = 0.0

    @property
    def columns(self) -> int:
        """How many random numbers an image takes."""
        return 4 * LAYERS * (self.magnitude is not None) + 5 * bool(self.erase)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Changed images.

        Args:
            images: float32 (N, 3, H, W) in [0, 1].
            draws: Their random numbers, (N, K), on the same device.
        """
        if self.magnitude is not None:
            levels = images.mul(255).round_()
            for layer in draws[:, :4 * LAYERS].split(4, dim=1):
                levels = self._operated(levels, *layer.unbind(1))
            images = levels.div_(255)
        return erased(images, draws[:, -5:], self.erase) if self.erase else images

    def _operated(self, levels: Tensor, kind: Tensor, done: Tensor, sign: Tensor, spread: Tensor) -> Tensor:
        assert self.magnitude is not None
        magnitude = self.magnitude + SPREAD * torch.special.ndtri(spread.clamp(1e-6, 1 - 1e-6))
        return done_to(levels, (kind * len(CHOICES)).long(), magnitude.clamp(0, MOST), sign < 0.5, done < CHANCE)


def done_to(levels: Tensor, kind: Tensor, magnitude: Tensor, negative: Tensor, done: Tensor) -> Tensor:
    """One operation on each image.

    Args:
        levels: Whole numbers from 0 to 255, float32 (N, 3, H, W).
        kind: Which of `CHOICES`, (N,), int64.
        magnitude: From 0 to 10, (N,).
        negative: Whether to turn the other way, darken rather than brighten, and so on, (N,), bool.
        done: Whether it is done at all, (N,), bool.
    """
    part = magnitude / MOST
    signed = torch.where(negative, -part, part)
    factor = ((1 + ENHANCED * signed).clamp_min(0.1) - FACTOR[0]) / (FACTOR[1] - FACTOR[0])
    turned, shifted = 0.5 + 0.5 * signed, 0.5 + 0.5 * signed * SHIFTED / SHARE
    amounts = {"posterize": -(4 * part).floor().clamp_max(3) / 4, "solarize": 1 - (256 * part).floor() / 256,
               "rotate": turned, "shear-x": turned, "shear-y": turned, "translate-x": shifted,
               "translate-y": shifted, **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), factor)}
    own = torch.full_like(kind, OPERATIONS.index("identity"))
    amount = torch.zeros_like(part)
    for place, choice in enumerate(CHOICES):
        chosen = (kind == place) & done
        own = torch.where(chosen, OPERATIONS.index(_STANDS_FOR.get(choice, choice)), own)
        amount = torch.where(chosen, amounts.get(choice, torch.zeros_like(part)), amount)
    levels = operate(levels, own, amount)
    adding = ((kind == CHOICES.index("solarize-add")) & done)[:, None, None, None] & (levels < 128)
    added = (ADDED * part).floor().clamp_max(128)[:, None, None, None]
    return torch.where(adding, (levels + added).clamp_max(255), levels)


def erased(images: Tensor, draws: Tensor, part: float) -> Tensor:
    """A box of some images filled with the mean colour of photographs.

    Args:
        images: float32 (N, 3, H, W) in [0, 1].
        draws: Five uniform numbers an image, (N, 5): whether, area, aspect, row and column.
        part: Of the images.
    """
    height, width = images.shape[2:]
    low, high = map(math.log, ASPECT)
    area = (ERASED[0] + (ERASED[1] - ERASED[0]) * draws[:, 1]) * height * width
    aspect = torch.exp(low + (high - low) * draws[:, 2])
    h = (area * aspect).sqrt().round().clamp_max(height)[:, None]                      # (N, 1)
    w = (area / aspect).sqrt().round().clamp_max(width)[:, None]
    top, left = (draws[:, 3:4] * (height - h + 1)).floor(), (draws[:, 4:] * (width - w + 1)).floor()
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    box = ((y >= top) & (y < top + h))[:, :, None] & ((x >= left) & (x < left + w))[:, None]
    box = box & (draws[:, :1, None] < part)                                            # (N, H, W)
    fill = torch.tensor(FILL, device=images.device)[:, None, None] / 255
    return torch.where(box[:, None], fill, images)
