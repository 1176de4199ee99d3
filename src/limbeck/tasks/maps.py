"""Maps of one value a pixel: brought to a size, and made pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN = 0.618034  # of the hue circle from one class to the next: neighbours differ, however many there are


STREET = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "pavement": (244, 35, 232), "building": (70, 70, 70),
    "wall": (102, 102, 156), "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "sign": (220, 220, 0), "vegetation": (107, 142, 35), "tree": (107, 142, 35),
    "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60), "pedestrian": (220, 20, 60),
    "rider": (255, 0, 0), "bicyclist": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100),
    "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32)}


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


def palette(classes: int, names: Sequence[str] = ()) -> Tensor:
    """A colour for each class, none of them black, uint8 (C, 3).

    Args:
        classes: How many there are.
        names: Theirs: what streets hold has the colours that Cityscapes gave it, so that pictures read like others'.
    """
    known = dict(enumerate(STREET.get(name.lower()) for name in names))
    colors = [known.get(c) or [round(255 * part) for part in colorsys.hsv_to_rgb(
        c * _GOLDEN % 1, (0.85, 0.5)[c // 2 % 2], (0.95, 0.65)[c % 2])] for c in range(classes)]
    return torch.tensor(colors, dtype=torch.uint8).view(-1, 3)


def shades() -> Tensor:
    """256 colours from near to far, uint8 (256, 3): matplotlib's viridis turned round, near things bright."""
    from matplotlib import colormaps

    return torch.from_numpy((colormaps["viridis_r"](torch.linspace(0, 1, 256).numpy())[:, :3] * 255).round()).to(
        torch.uint8)
