"""Whole batches of images and maps changed together: scaled, turned, cropped, mirrored; colours of images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS = 9  # scale, top, left, mirror, angle, brightness, contrast, saturation, sparse samples


@dataclass(frozen=True)
class Joint:
    """How training images and their maps are changed, given uniform numbers in [0, 1) that somebody else draws.

    An image is scaled, turned about its middle, and a window cut out at a whole pixel; where it is smaller than the
    window it lies in it, on black. Images are read bilinearly, without antialiasing as in IFVD's
    and sparse-to-dense's code, maps at the nearest pixel to the same point. At scale 1 and angle 0 pixels are copied.

    Attributes:
        crop: Height and width of the window; None: the image's own.
        scale: Least and greatest factor on the image's size, uniform between.
        rotate: Degrees of a turn, at most, either way.
        mirror: Mirror every other image.
        jitter: Brightness, contrast and saturation are multiplied with factors from 1 - jitter to 1 + jitter, in this
            order, as by torchvision's ColorJitter.
        wander: The window is at a random place; False: in the middle.
    """

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    mirror: bool = False
    jitter: float = 0.0
    wander: bool = True
    kind: str = "joint"

    @property
    def columns(self) -> int:
        """How many random numbers an image takes: as many whatever is turned on."""
        return COLUMNS

    def draw(self, images: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers for so many images, float32 (N, K)."""
        return torch.rand(images, self.columns, generator=generator)

    def __call__(self, pixels: Tensor, maps: Tensor, draws: Tensor, outside: int) -> tuple[Tensor, Tensor, Tensor]:
        """Changed images and maps.

        Args:
            pixels: uint8 (N, 3, H, W).
            maps: Of any type, (N, H, W).
            draws: Their random numbers, (N, K), on the same device.
            outside: What a map holds where there is no image.

        Returns:
            Images, float32 (N, 3, h, w) in [0, 1]; maps (N, h, w) of their type; each image's scale, (N,).
        """
        low, high = self.scale
        scale = low + (high - low) * draws[:, 0]
        y, x = self._places(scale, draws, *pixels.shape[2:])
        inside = (y >= 0) & (y < pixels.shape[2]) & (x >= 0) & (x < pixels.shape[3])
        images = torch.where(inside[:, None], bilinear(pixels, y, x).div_(255), 0.0)
        if self.jitter:
            images = colored(images, 1 + self.jitter * (2 * draws[:, 5:8] - 1))
        return images, torch.where(inside, at_nearest(maps, y, x), outside), scale

    def _places(self, scale: Tensor, draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The points of the image, from its upper left corner, that the pixels of the window show; (N, h, w) each."""
        h, w = self.crop or (height, width)
        down, across = draws[:, 1:3].unbind(1) if self.wander else torch.full_like(draws[:, :2], 0.5).unbind(1)
        top, left = _corner(scale * height, h, down), _corner(scale * width, w, across)
        row = torch.arange(h, device=draws.device) + 0.5
        column = (torch.arange(w, device=draws.device) + 0.5).expand(len(draws), w)
        if self.mirror:
            column = torch.where(draws[:, 3:4] < 0.5, column.flip(1), column)
        y, x = (top[:, None] + row)[:, :, None], (left[:, None] + column)[:, None]          # (N, h, 1), (N, 1, w)
        if self.rotate:
            angle = (math.radians(self.rotate) * (2 * draws[:, 4] - 1))[:, None, None]
            middle_y, middle_x = ((scale * side / 2)[:, None, None] for side in (height, width))
            y, x = y - middle_y, x - middle_x
            y, x = (angle.sin() * x + angle.cos() * y + middle_y, angle.cos() * x - angle.sin() * y + middle_x)
        scale = scale[:, None, None]
        return (y / scale).expand(-1, h, w), (x / scale).expand(-1, h, w)


def _corner(side: Tensor, window: int, draw: Tensor) -> Tensor:
    """Where a window begins in a side, in whole pixels, (N,); below 0 where the side is the smaller."""
    room = side.floor() - window
    return (draw * (room.abs() + 1)).floor() * room.sign()


def bilinear(pixels: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Images at points within them, float32 (N, C, h, w); beyond the middle of the outermost pixel that pixel holds.

    Args:
        pixels: uint8 (N, C, H, W).
        y: From the upper edge, in pixels, (N, h, w).
        x: From the left edge, likewise.
    """
    height, width = pixels.shape[2:]
    y, x = (y - 0.5).clamp(0, height - 1), (x - 0.5).clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = (y - top)[:, None], (x - left)[:, None]
    rows = top.long(), (top.long() + 1).clamp_max(height - 1)
    columns = left.long(), (left.long() + 1).clamp_max(width - 1)
    flat = pixels.flatten(2)
    a, b, c, d = (_picked(flat, row * width + column) for row in rows for column in columns)
    upper, lower = torch.lerp(a, b, right), torch.lerp(c, d, right)
    return torch.lerp(upper, lower, down)


def _picked(flat: Tensor, place: Tensor) -> Tensor:
    """Pixels (N, C, HW) at places (N, h, w), float32 (N, C, h, w)."""
    found = flat.gather(2, place.flatten(1)[:, None].expand(-1, flat.shape[1], -1))
    return found.float().unflatten(2, place.shape[1:])


def at_nearest(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Maps (N, H, W) of any type at the pixels that hold points (N, h, w)."""
    height, width = maps.shape[1:]
    place = y.floor().long().clamp(0, height - 1) * width + x.floor().long().clamp(0, width - 1)
    return maps.flatten(1).gather(1, place.flatten(1)).view_as(place)


def colored(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation multiplied.

    Args:
        images: (N, 3, H, W) in [0, 1].
        factors: One of each, (N, 3).
    """
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp(0, 1)
    return torch.lerp(_grey(images), images, saturation).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Brightness by the weights of ITU-R 601, (N, 1, H, W)."""
    return (images * images.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
