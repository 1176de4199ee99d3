"""Whole batches changed at once: crops, flips and resized crops as functions of pixels and of numbers drawn before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["crop-flip", "crop", "resized-crop", "none"]
Padding = Literal["zeros", "reflect"]

TRIES = 10  # as torchvision's RandomResizedCrop; so are the two ranges
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
COLUMNS = {"none": 0, "crop": 2, "crop-flip": 3, "resized-crop": 3 + 2 * TRIES}


class Change(Protocol):
    """What makes one view of an image: an `Augmentation`, or something stronger."""

    @property
    def columns(self) -> int:
        """How many random numbers an image takes."""
        ...

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers for so many images, float32 (N, K)."""
        ...

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Of uint8 pixels (N, 3, H, W) and their numbers (N, K): float32 (N, 3, H, W) in [0, 1]."""
        ...


class After(Protocol):
    """What is done to images once they are cut."""

    @property
    def columns(self) -> int:
        """How many random numbers an image takes."""
        ...

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Of images in [0, 1], float32 (N, 3, H, W), and their numbers (N, K): the same, changed."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed, given uniform numbers in [0, 1) that somebody else draws.

    Attributes:
        kind: `crop` pads and cuts out a window of the image's own size; `crop-flip` also mirrors every other image;
            `resized-crop` cuts out a box of random area and aspect, resizes it and mirrors every other image.
        padding: Pixels added on each side before a crop.
        padding_mode: What is added: black, or the image mirrored at its edge.
        after: What is done to the images then; its random numbers come behind.
    """

    kind: Kind = "none"
    padding: int = 0
    padding_mode: Padding = "zeros"
    after: After | None = None

    @property
    def columns(self) -> int:
        """How many random numbers an image takes."""
        return COLUMNS[self.kind] + (self.after.columns if self.after else 0)

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers for so many images, float32 (N, K); K depends on the kind alone."""
        return torch.rand(images, self.columns, generator=generator)

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Changed images.

        Args:
            pixels: uint8 (N, 3, H, W).
            draws: Their random numbers, (N, K), on the same device.

        Returns:
            float32 (N, 3, H, W) in [0, 1], contiguous.
        """
        own, rest = draws.tensor_split([COLUMNS[self.kind]], dim=1)
        images = self._cut(pixels, own)
        return images if self.after is None else self.after(images, rest)

    def decoded(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """The images where pictures were cut as they were decoded: what is done then is left."""
        return unit(pixels) if self.after is None else self.after(unit(pixels), draws[:, COLUMNS[self.kind]:])

    def _cut(self, pixels: Tensor, draws: Tensor) -> Tensor:
        if self.kind == "none":
            return unit(pixels)
        if self.kind == "resized-crop":
            boxes = resized_boxes(draws, *pixels.shape[2:])
            return resample(pixels, boxes, draws[:, -1] < 0.5, pixels.shape[2:]).div_(255)
        return unit(crop(pixels, *self.window(draws), padding=self.padding, mode=self.padding_mode))

    def window(self, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a crop's numbers (N, K) mean: offsets (N, 2), int64, and which are mirrored, (N,), bool, if any are."""
        offsets = (draws[:, :2] * (2 * self.padding + 1)).long()
        return offsets, draws[:, -1] < 0.5 if self.kind == "crop-flip" else None


@dataclass(frozen=True)
class Views:
    """Several augmentations of the same images, each with random numbers of its own.

    Attributes:
        parts: The augmentations; the first makes `Batch.images`, the others `Batch.views`.
    """

    parts: tuple[Change, ...]
    kind: str = "views"

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """The parts' numbers side by side, (N, sum of K). The first part's are those that it draws alone."""
        return torch.cat([part.draw(images, generator) for part in self.parts], dim=1)

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """All views, float32 (N, V, 3, H, W) in [0, 1]."""
        own = draws.split([part.columns for part in self.parts], dim=1)
        return torch.stack([part(pixels, numbers) for part, numbers in zip(self.parts, own, strict=True)], dim=1)


def unit(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return pixels.float().div_(255)


def crop(pixels: Tensor, offsets: Tensor, flip: Tensor | None, *, padding: int, mode: Padding) -> Tensor:
    """Windows of padded, perhaps mirrored images.

    Every possible window is a slice of one overlapping view of the padded batch, and a mirrored one a slice of its
    mirrored half; so a window and a flip together are one index, and `index_select` copies whole windows by it.

    Args:
        pixels: (N, C, H, W).
        offsets: Upper left corner of each window in the padded (and, if so, mirrored) image, (N, 2), int64.
        flip: Which are mirrored, (N,), bool; None for none.
        padding: Pixels added on each side.
        mode: `zeros` or `reflect`.

    Returns:
        (N, C, H, W), contiguous, of the same type.
    """
    n, c, h, w = pixels.shape
    if flip is not None:
        pixels = torch.cat([pixels, pixels.flip(3)])
    padded = pad(pixels, padding, mode)
    rows, columns = padded.shape[2:]
    each = c * rows * columns
    starts = padded.numel() - ((c - 1) * rows * columns + (h - 1) * columns + w) + 1
    windows = padded.as_strided((starts, c, h, w), (1, rows * columns, columns, 1))
    image = torch.arange(n, device=pixels.device)
    image = image if flip is None else image + n * flip
    return windows.index_select(0, image * each + offsets[:, 0] * columns + offsets[:, 1])


def pad(pixels: Tensor, padding: int, mode: Padding) -> Tensor:
    """Images (N, C, H, W) of any type with `padding` pixels more on each side; less than a side where reflected."""
    if mode == "zeros":
        return F.pad(pixels, (padding,) * 4)
    for dim in (2, 3) if padding else ():
        side = pixels.shape[dim]
        before, after = pixels.narrow(dim, 1, padding), pixels.narrow(dim, side - 1 - padding, padding)
        pixels = torch.cat([before.flip(dim), pixels, after.flip(dim)], dim)
    return pixels


def resized_boxes(draws: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Boxes of 8 to 100 % of the image's area and of aspects between 3:4 and 4:3.

    The first of ten tries that fits is taken. Where none does, the first is cut to the image; torchvision then takes a
    central box.

    Args:
        draws: Uniform numbers, (N, 3 + 2 * TRIES): areas, aspects, place, flip.
        height: Of the images, (N,) or one for all.
        width: Likewise.

    Returns:
        Top, left, height and width in whole pixels, (N, 4), int64.
    """
    height, width = (x if isinstance(x, Tensor) else torch.full((len(draws),), x, device=draws.device)
                     for x in (height, width))
    area = (AREA[0] + (AREA[1] - AREA[0]) * draws[:, :TRIES]) * (height * width)[:, None]              # (N, tries)
    low, high = map(math.log, RATIO)
    aspect = torch.exp(low + (high - low) * draws[:, TRIES:2 * TRIES])
    h, w = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (h <= height[:, None]) & (w <= width[:, None])
    first = fits.int().argmax(1, keepdim=True)
    h = torch.minimum(h.gather(1, first)[:, 0], height).clamp_min(1)
    w = torch.minimum(w.gather(1, first)[:, 0], width).clamp_min(1)
    top = (draws[:, 2 * TRIES] * (height - h + 1)).long()
    left = (draws[:, 2 * TRIES + 1] * (width - w + 1)).long()
    return torch.stack([top, left, h, w], 1)


def resample(pixels: Tensor, boxes: Tensor, flip: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Each image's box brought to one size, antialiased (bilinear), as two small matrix products.

    out = A_y image A_x^T, where row o of A holds the triangle filter around output pixel o, normalised; equal to
    `F.interpolate(box, size, mode="bilinear", antialias=True)` to rounding, for all boxes at once.

    Args:
        pixels: (N, C, H, W), uint8.
        boxes: Top, left, height and width, (N, 4).
        flip: Which are mirrored, (N,), bool.
        size: Height and width of the result.

    Returns:
        float32 (N, C, *size), in the range of `pixels`.
    """
    top, left, h, w = boxes.unbind(1)
    down = _triangles(top, h, pixels.shape[2], size[0])
    across = _triangles(left, w, pixels.shape[3], size[1])
    across = torch.where(flip[:, None, None], across.flip(1), across)
    return (down[:, None] @ pixels.float() @ across[:, None].mT).clamp_(0, 255)


def _triangles(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (N, size, side) that bring pixels [start, start + length) of a side to `size` pixels."""
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / size
    centre = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale                # (N, size, 1)
    place = torch.arange(side, device=start.device) + 0.5                                            # (side,)
    weight = (1 - (place - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weight = weight * ((place > start) & (place < start + length))
    return weight / weight.sum(2, keepdim=True)
