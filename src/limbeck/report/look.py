"""How every picture looks: one style, colours that colour-blind readers tell apart, a few habits of drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_Given = ParamSpec("_Given")

INK, MUTED, LINE, PAPER = "#1f2328", "#5c6570", "#dfe3e8", "#ffffff"

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#997a4d")
"""Okabe and Ito's colours without yellow and black, and two more; see `line_style` for what comes after them."""

WIDE, NARROW = 9.6, 4.4
"""Widths in inches: of a page, and of a phone's screen."""

STYLE: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "axes.titlecolor": INK, "axes.labelsize": 9.5, "axes.labelcolor": MUTED, "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
    "axes.facecolor": PAPER, "figure.facecolor": PAPER, "grid.color": LINE, "grid.linewidth": 0.8,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelsize": 9, "ytick.labelsize": 9, "ytick.major.size": 0,
    "xtick.major.size": 3, "text.color": INK, "legend.frameon": False, "legend.fontsize": 9.5, "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round", "figure.constrained_layout.use": True, "figure.dpi": 100, "svg.fonttype": "none",
    "figure.constrained_layout.w_pad": 0.07, "figure.constrained_layout.h_pad": 0.07,
}


def styled(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
    """Let a function draw in our style, and leave everyone else's as it is."""
    @wraps(draw)
    def drawing(*args: _Given.args, **kwargs: _Given.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)
    return drawing


def line_style(position: int) -> dict[str, Any]:
    """Colour of a series; dashes come in where colours come round again."""
    return {"color": SERIES[position % len(SERIES)], "linestyle": ("-", "--", ":", "-.")[position // len(SERIES) % 4]}


def tint(color: str, part: float) -> str:
    """A colour with so much white in it."""
    return colors.to_hex([channel + (1 - channel) * part for channel in colors.to_rgb(color)])


def ramp_colors(count: int) -> list[str]:
    """Colours of things that have an order, first to last from light to dark."""
    shades = matplotlib.colormaps["viridis"]
    return [colors.to_hex(shades(0.82 - 0.58 * i / max(1, count - 1))) for i in range(count)]


def class_colors(count: int) -> list[str]:
    """A colour for each class; of more than 20, hues go round by the golden ratio, so that neighbours differ most."""
    if count <= len(SERIES):
        return list(SERIES[:count])
    if count <= 20:  # full ones first, then their light twins
        return [colors.to_hex(matplotlib.colormaps["tab20"](i)) for i in [*range(0, 20, 2), *range(1, 20, 2)][:count]]
    return [colors.to_hex(colors.hsv_to_rgb((0.618034 * i % 1, (0.85, 0.55, 0.95)[i % 3], (0.85, 0.75, 0.55)[i % 3])))
            for i in range(count)]


def ticks(axes: Axes, *, x: int = 5, y: int = 4, whole: bool = False) -> None:
    """About so many ticks, at round numbers; whole ones for epochs."""
    round_numbers = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(x, integer=whole, steps=[1, 2, 5, 10] if whole else round_numbers))
    axes.yaxis.set_major_locator(MaxNLocator(y, steps=round_numbers))


def from_zero(axes: Axes) -> None:
    """A y axis that begins at 0, or below where there is something, and has room above the highest line."""
    low, high = (limit if math.isfinite(limit) else 0.0 for limit in (axes.dataLim.y0, axes.dataLim.y1))
    axes.set_ylim(min(0.0, 1.08 * low), 1.08 * max(0.0, high) or 1.0)


def grid(count: int, columns: int, *, width: float, height: float, **more: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure of `count` panels, row by row.

    Args:
        count: Panels.
        columns: Panels in a row, at most.
        width: Of the figure, inches.
        height: Of a row, inches.
        more: Further settings of `Figure.subplots`.
    """
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = Figure((width, height * lines))
    panels = list(figure.subplots(lines, columns, squeeze=False, **more).flat)
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def panel_grid(count: int) -> tuple[Figure, Sequence[Axes]]:
    """Square panels, up to three in a row, each with a heading of two lines; see `titled`."""
    columns = min(count, 3)
    width = WIDE if count > 1 else 0.66 * WIDE
    return grid(count, columns, width=width, height=width / columns + 0.1)


def bare(axes: Axes) -> None:
    """A panel that is an image: no axes, no grid, no frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def titled(axes: Axes, title: str, below: str) -> None:
    """A panel's title, and a line under it that says more."""
    axes.set_title(title, pad=22)
    axes.annotate(below, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=9)
