"""Maps of one value a pixel: brought to a size, and made pictures."""

from __future__ import annotations

import colorsys

import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN = 0.618034  # of the hue circle from one class to the next: neighbours differ, however many there are


def at_size(output: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Channels (N, C, h, w) brought to a height and width, bilinearly, pixels taken as squares (corners not aligned).

    Raises:
        ValueError: If the output is no map of channels.
    """
    if output.ndim != 4:
        raise ValueError(f"a dense task needs outputs (N, C, h, w); got {tuple(output.shape)}. Give a network that "
                         "answers with a map")
    if output.shape[2:] == torch.Size(size):
        return output
    return F.interpolate(output, tuple(size), mode="bilinear", align_corners=False)


def same_places(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps (N, h, w) of any type brought to a height and width, each pixel taking the nearest value."""
    if maps.shape[1:] == torch.Size(size):
        return maps
    rows, columns = ((torch.arange(to, device=maps.device) * 2 + 1) * side // (2 * to)
                     for to, side in zip(size, maps.shape[1:], strict=True))
    return maps[:, rows[:, None], columns]


def palette(classes: int) -> Tensor:
    """A colour for each class, none of them black, uint8 (C, 3)."""
    colors = [colorsys.hsv_to_rgb(c * _GOLDEN % 1, (0.85, 0.5)[c // 2 % 2], (0.95, 0.65)[c % 2])
              for c in range(classes)]
    return (torch.tensor(colors).view(-1, 3) * 255).round().to(torch.uint8)


def shades() -> Tensor:
    """256 colours from near to far, uint8 (256, 3): matplotlib's viridis turned round, near things bright."""
    from matplotlib import colormaps

    return torch.from_numpy((colormaps["viridis_r"](torch.linspace(0, 1, 256).numpy())[:, :3] * 255).round()).to(
        torch.uint8)
