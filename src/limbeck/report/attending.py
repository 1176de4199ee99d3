"""The picture of where everyone looks: attention of networks over the same images (FFSD, Figures 2 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from limbeck.connectors import as_map
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.evaluation.scores import resting, together
from limbeck.losses import attention_map
from limbeck.members import Network
from limbeck.members.branches import Branch
from limbeck.method import Method
from limbeck.methods.fusing import Fusion
from limbeck.report.look import INK, MUTED, WIDE, bare, styled
from limbeck.seen import Batch, Clock
from limbeck.terms import full

ROWS = 6
_SHOWN = 0.65  # of the map over the image
_LABEL = 1.5  # inches beside a row, for its class


@dataclass(frozen=True)
class Looks:
    """Images, and where everyone looks on them.

    Attributes:
        images: (N, H, W, 3), in [0, 1].
        labels: Each image's class.
        maps: Who -> attention at the image's size, (N, H, W), each image's from 0 at its lowest to 1 at its highest.
        taps: Who -> the layer that it is of.
    """

    images: NDArray[np.float32]
    labels: tuple[str, ...]
    maps: Mapping[str, NDArray[np.float32]]
    taps: Mapping[str, str]


def looks(method: Method, batches: Batches, classes: tuple[str, ...], *, count: int = ROWS) -> Looks:
    """Attention of the last maps of every network, learning or frozen, and of the maps that a member fuses.

    Attention is the mean over channels of squares, brought to the image's size bilinearly.

    Args:
        method: In whatever mode; it looks in eval mode.
        batches: Plain; the first image of each of `count` classes is shown.
        classes: Names of the classes.
        count: Images at most.

    Raises:
        Mistake: If nobody has a map.
    """
    images, labels = _chosen(batches, len(classes), count)
    taps = _tapped(method)
    batch = Batch(images, None, torch.arange(len(images), device=images.device), (images,) * len(method.views))
    with torch.no_grad(), resting(method):
        seen = method.see(batch, Clock(0, 1, 1))
        found = {name: full(seen[f"{name}.{tap}"]) for name, tap in taps.items()}
    size = images.shape[-2:]
    maps = {name: _scaled(attention_map(as_map(x)), (size[0], size[1])) for name, x in found.items() if x.ndim > 2}
    if not maps:
        raise Mistake("a picture of attention needs networks with stages; none here has one. `limbeck taps NETWORK` "
                      "shows what a network has.")
    shown = images[:, :3].float().cpu().permute(0, 2, 3, 1).numpy()
    return Looks(shown, tuple(classes[label] for label in labels), maps, taps)


def _chosen(batches: Batches, classes: int, count: int) -> tuple[Tensor, list[int]]:
    """The first image of each of some classes, spread over all, in the classes' order."""
    wanted = set(np.linspace(0, classes - 1, min(count, classes)).round().astype(int).tolist())
    found: dict[int, Tensor] = {}
    for batch in batches.epoch(0):
        if batch.targets is None or batch.targets.ndim > 1:
            return batch.images[:count], []
        for image, label in zip(batch.images, batch.targets.tolist(), strict=True):
            if label in wanted:
                found.setdefault(label, image)
        if len(found) == len(wanted):
            break
    labels = sorted(found)
    return torch.stack([found[label] for label in labels]), labels


def _tapped(method: Method) -> dict[str, str]:
    """Who is shown, and by which tap: networks, the fusion, a leader, who is frozen; from now on they are tapped."""
    learning = dict(method.members.items())
    frozen = {name: teacher.network for name, teacher in method.frozen.items()}
    kept = [method.deploy] if method.deploy not in together(method) else []
    order = [*(name for name in learning if name not in kept), *kept, *frozen]
    taps = {}
    for name, member in ((name, {**learning, **frozen}[name]) for name in order):
        if isinstance(member, Network | Branch) and member.stages:
            taps[name] = member.stages[-1]
            if isinstance(member, Network):
                member.tap([taps[name]])
        elif isinstance(member, Fusion):
            taps[name] = "features"
    return taps


def _scaled(maps: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """At the image's size, each from 0 to 1."""
    large = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].flatten(1)
    low, high = large.amin(1, keepdim=True), large.amax(1, keepdim=True)
    scaled: NDArray[np.float32] = ((large - low) / (high - low).clamp(min=1e-12)).unflatten(1, size).cpu().numpy()
    return scaled


@styled
def attention(found: Looks) -> Figure:
    """A row for each image: the image, then everyone's attention laid over it, from dark (least) to bright (most)."""
    columns, lines = 1 + len(found.maps), len(found.images)
    side = min(1.4, (WIDE - _LABEL) / columns)
    figure = Figure((side * columns + _LABEL, side * lines + 0.5))
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    panels = figure.subplots(lines, columns, squeeze=False)
    for line, image in enumerate(found.images):
        _draw(panels[line, 0], image)
        if found.labels:
            panels[line, 0].set_ylabel(fill(found.labels[line], 16), rotation=0, ha="right", va="center", color=INK)
        for column, maps in enumerate(found.maps.values(), start=1):
            _draw(panels[line, column], image, maps[line])
    for axes, name in zip(panels[0], ["image", *found.maps], strict=True):
        axes.set_title(name, loc="center", fontsize=9.5, pad=14)
        axes.annotate(found.taps.get(name, ""), (0.5, 1), (0, 3), xycoords="axes fraction", ha="center",
                      textcoords="offset points", color=MUTED, fontsize=8)
    return figure


def _draw(axes: Axes, image: NDArray[np.float32], attention: NDArray[np.float32] | None = None) -> None:
    """An image; with attention over it, itself in grey."""
    bare(axes)
    if attention is None:
        axes.imshow(image.clip(0, 1), interpolation="nearest")
        return
    axes.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.imshow(attention, cmap="inferno", vmin=0, vmax=1, alpha=_SHOWN, interpolation="nearest")
