"""The picture of predictions side by side: image, truth, teacher, student alone, distilled students."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from limbeck.report.look import MUTED, NARROW, WIDE, bare, styled
from limbeck.report.predicting import Predictions
from limbeck.tasks.depth import Depth
from limbeck.tasks.maps import palette, shades
from limbeck.tasks.segmentation import Segmentation

_ACROSS = 9    # more columns than these are rows instead
_ON_PHONE = 2  # images
_WIDEST = 2.3  # of an image, inches
_NAME = 1.45   # of a class in the legend, inches


@styled
def predictions(found: Predictions, *, narrow: bool = False, captioned: bool = False) -> Figure:
    """A column for the images, the truth and everyone, a row for each image; of many columns, the other way round.

    Below, the classes that occur by their colours, or a bar of depth in metres, the same for all.

    Args:
        found: What they say.
        narrow: For a phone's screen: two images, and everyone below the other.
        captioned: With words that say what it is.
    """
    columns, count = found.columns, len(found.columns[0].pictures)
    count, down = min(count, _ON_PHONE) if narrow else count, narrow or len(columns) > _ACROSS
    height, width = columns[0].pictures.shape[1:3]
    across, lines = (count, len(columns)) if down else (len(columns), count)
    side = min(_WIDEST, (NARROW if narrow else WIDE) / across)
    total = max(side * across, NARROW)
    heads = [fill(column.who, max(8, int((total if down else side) * 11))) for column in columns]
    below = not down and all(len(column.network) * 0.065 < side for column in columns)
    words = fill(found.caption, int(total * 14)) if captioned else ""
    above = 0.25 * lines if down else 0.17 * max(head.count("\n") + 1 for head in heads) + 0.2 * below
    caption = (0.16 * words.count("\n") + 0.3) * captioned
    figure = Figure((total, above + caption + lines * side * height / width + 0.75))
    free = (0, 0, 1, 1 - caption / figure.get_figheight())
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0, hspace=0, rect=free)
    panels = figure.subplots(lines, across, squeeze=False)
    for column, head, own in zip(columns, heads, panels if down else panels.T, strict=True):
        for axes, picture in zip(own, column.pictures, strict=False):
            bare(axes)
            axes.imshow(picture, interpolation="none")
        own[0].set_title(head, fontsize=9.5, pad=16 if below else 4)
        if below:
            own[0].annotate(column.network, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
                            color=MUTED, fontsize=8)
    if captioned:
        top = 1 - 0.06 / figure.get_figheight()
        figure.suptitle(words, x=0.01, y=top, ha="left", va="top", color=MUTED, fontsize=9)
    _key(figure, found, panels)
    return figure


def _key(figure: Figure, found: Predictions, panels: NDArray[Any]) -> None:
    """What colours mean."""
    task = found.task
    if isinstance(task, Segmentation):
        colors = palette(task.classes, task.names).numpy() / 255
        named = dict(enumerate(task.names))
        handles = [Patch(facecolor=to_hex(colors[label]), label=named.get(label, str(label)))
                   for label in found.classes]
        figure.legend(handles=handles, loc="outside lower left", fontsize=9, handlelength=1.1, columnspacing=1.2,
                      ncols=max(1, min(len(handles), int(figure.get_figwidth() / _NAME))))
    elif isinstance(task, Depth):
        scale = ScalarMappable(Normalize(0, task.farthest), ListedColormap(shades().numpy() / 255))
        bar = figure.colorbar(scale, ax=panels, location="bottom", aspect=50, shrink=0.6, pad=0.02,
                              label="depth in metres")
        bar.outline.set_visible(False)
        if bar.solids is not None:  # as an image; 256 paths are large
            bar.solids.set_rasterized(True)
