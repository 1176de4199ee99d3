"""Pictures of runs. Each function returns a Figure of its own; nothing is shown and no state is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from limbeck.report.grouping import METRICS, Row, names, with_deviation
from limbeck.report.look import INK, LINE, MUTED, NARROW, PAPER, WIDE, from_zero, grid, line_style, styled, ticks
from limbeck.report.outcome import Outcome, lower_better
from limbeck.report.pathways import process

__all__ = ["curves", "losses", "process", "rates", "scores"]


@styled
def scores(table: Sequence[Row], *, narrow: bool = False) -> Figure:
    """The last test score of every row: each run a dot, their mean a bar across, the paper's number a diamond.

    Args:
        table: Rows, the first at the top. Searches and unfinished rows are left out while there are others.
        narrow: For a phone's screen.
    """
    measured = [drawn for drawn in _compared(table) if drawn[0].last]
    shown = [drawn for drawn in measured if drawn[0].finished] or measured
    if not shown:
        return _nothing("nothing is scored yet", narrow)
    figure = Figure((NARROW if narrow else WIDE, 0.8 + (0.5 if narrow else 0.34) * len(shown)))
    axes = figure.subplots()
    for place, (row, _, style) in enumerate(shown):
        _draw_score(axes, row, place, style["color"])
    measure = "test " + " or ".join(dict.fromkeys(METRICS.get(row.metric, row.metric) for row, _, _ in shown))
    axes.set_xlabel(measure + (" (◇: the paper’s)" if any(row.paper for row, _, _ in shown) else ""))
    axes.set(yticks=range(len(shown)), ylim=(len(shown) - 0.4, -0.6))
    axes.set_yticklabels([fill(name, 18 if narrow else 40) for _, name, _ in shown], color=INK, fontsize=9.5)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.grid(True, axis="x")
    axes.grid(True, axis="y", color=LINE, linestyle=(0, (1, 3)))
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    return figure


@styled
def curves(table: Sequence[Row], *, narrow: bool = False) -> Figure:
    """Test score and test loss against epochs; a line a row, the mean over its runs, with their range behind it.

    The limits are those of the second half of training, so that the differences at the end can be seen.

    Args:
        table: Rows, as in a table. Searches are left out while there are others.
        narrow: For a phone's screen: one panel below the other.
    """
    compared = _compared(table)
    figure = Figure((NARROW, 5.6 + 0.24 * len(compared)) if narrow else (WIDE, max(3.7, 1.0 + 0.3 * len(compared))))
    panels = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    metric = next((row.metric for row, *_ in compared if row.last), "top1")
    for axes, key in zip(panels, (metric, _loss(compared)), strict=True):
        lines = [_draw_row(axes, row, key, name if row.finished else f"{name}, so far", style)
                 for row, name, style in compared]
        axes.set(title=f"Test {METRICS.get(key, key)}", xlabel="epoch", xlim=(0, None))
        _show_the_end(axes, [line for (row, *_), line in zip(compared, lines, strict=True) if row.finished] or lines)
        ticks(axes, y=5, whole=True)
    ends = {line: _points(line)[-1, 1] for line in panels[0].get_lines() if len(_points(line))}
    ranked = sorted(ends, key=lambda line: ends[line], reverse=not lower_better(metric))
    labels = [f"{with_deviation(ends[line], None)}  {fill(str(line.get_label()), 30, subsequent_indent=' ' * 11)}"
              for line in ranked]
    figure.legend(ranked, labels, loc="outside lower left" if narrow else "outside right upper", handlelength=1.6)
    return figure


def _loss(compared: Sequence[tuple[Row, str, dict[str, Any]]]) -> str:
    """The measure that networks were trained on, of those which tests have: depth is, in metres."""
    tested = {key for row, *_ in compared for run in row.counted for record in run.records
              if record.get("kind") == "test" for key in record}
    return "mae" if "mae" in tested and "cross_entropy" not in tested else "cross_entropy"


@styled
def losses(run: Outcome, *, narrow: bool = False) -> Figure:
    """Every term's training loss over the epochs, before its weight.

    Terms of one family (`kd/…`, `t3>s2/…`) share a panel. Where a term was not computed its line has a gap.

    Args:
        run: What to show.
        narrow: For a phone's screen.
    """
    families: dict[str, list[str]] = {}
    for term in dict.fromkeys(term for record in run.records for term in record.get("losses", {})):
        families.setdefault(term.partition("/")[0], []).append(term)
    if not families:
        return _nothing("no epoch is finished yet", narrow)
    columns = 2 if narrow else min((5, 4, 3), key=lambda count: -len(families) % count)
    figure, panels = grid(len(families), columns, width=NARROW if narrow else WIDE, height=1.9 if narrow else 2.1)
    for axes, (family, terms) in zip(panels, families.items(), strict=True):
        for position, term in enumerate(terms):
            axes.plot(*run.curve("train", "losses", term), label=term.partition("/")[2], **line_style(position))
        axes.set(title=family, xlim=(0, run.curve("train", "loss")[0][-1]))
        from_zero(axes)
        _part_stages(axes, run)
        ticks(axes, x=4, y=4, whole=True)
    _shared_legend(figure, panels)
    figure.supxlabel("epoch", fontsize=9.5, color=MUTED)
    return figure


@styled
def rates(run: Outcome, *, narrow: bool = False) -> Figure:
    """The learning rate and the images trained on in a second, over the epochs.

    Args:
        run: What to show.
        narrow: For a phone's screen.
    """
    if not run.curve("train", "lr")[0]:
        return _nothing("no epoch is finished yet", narrow)
    figure, panels = grid(2, 2, width=NARROW if narrow else WIDE, height=1.9 if narrow else 2.0)
    for axes, key, title in zip(panels, ("lr", "images_per_second"), ("Learning rate", "Images a second"), strict=True):
        axes.plot(*run.curve("train", key), drawstyle="steps-pre" if key == "lr" else "default", **line_style(0))
        axes.set(title=title, xlabel="epoch", xlim=(0, None))
        from_zero(axes)
        _part_stages(axes, run)
        ticks(axes, y=4, whole=True)
    return figure


def _compared(table: Sequence[Row]) -> list[tuple[Row, str, dict[str, Any]]]:
    """Rows with their names and styles. Searches are short and train on less, so they would only stretch the axes."""
    drawn = list(zip(table, names(table), _styles(table), strict=True))
    return [(row, name, style) for row, name, style in drawn if not row.search] or drawn


def _draw_score(axes: Axes, row: Row, place: int, color: str) -> None:
    assert row.last is not None
    axes.plot(row.last.values, [place] * len(row.last.values), "o", color=color, alpha=0.55, ms=6.5, mew=0)
    axes.plot([row.last.mean] * 2, [place - 0.28, place + 0.28], color=color, linewidth=2.6)
    axes.annotate(str(row.last), (1, place), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                  va="center", annotation_clip=False)
    if row.paper:
        axes.plot(row.paper[0], place, "D", mfc=PAPER, mec=MUTED, ms=6, mew=1.2)


def _draw_row(axes: Axes, row: Row, key: str, name: str, style: dict[str, Any]) -> Line2D:
    """The mean over a row's runs at the epochs that all of them reached, and the range from lowest to highest."""
    measured = [dict(zip(*run.curve("test", key), strict=True)) for run in row.counted]
    epochs = sorted(set.intersection(*(set(run) for run in measured)))
    values = [[run[epoch] for run in measured] for epoch in epochs]
    if epochs and len(measured) > 1:
        low, high = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.16, lw=0)
    (line,) = axes.plot(epochs, [sum(v) / len(v) for v in values], label=name, marker="o" if len(epochs) == 1 else "",
                        **style)
    return line


def _show_the_end(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Limits of the y axis that hold the second half of the longest line, and every line's end."""
    drawn = [_points(line) for line in lines if len(_points(line))]
    half = max((points[-1, 0] for points in drawn), default=0.0) / 2
    late = [y for points in drawn for x, y in points if math.isfinite(y) and x >= min(half, points[-1, 0])]
    if late:
        margin = 0.06 * (max(late) - min(late)) or 0.5
        axes.set_ylim(min(late) - margin, max(late) + margin)


def _points(line: Line2D) -> NDArray[np.float64]:
    """Epochs and values, (P, 2)."""
    return np.asarray(line.get_xydata(), dtype=np.float64)


def _styles(table: Sequence[Row]) -> list[dict[str, Any]]:
    """A colour a row; grey for students without a teacher, which the others are compared with."""
    alone = [row.teacher is None and row.what.startswith("none") for row in table]
    return [{"color": MUTED, "linestyle": ("-", "--", ":", "-.")[sum(alone[:i]) % 4]} if alone[i]
            else line_style(i - sum(alone[:i])) for i in range(len(table))]


def _shared_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for panels whose lines are called the same, or one in each panel."""
    legends = [axes.get_legend_handles_labels() for axes in panels]
    named = [(handles, labels) for handles, labels in legends if any(labels)]
    if len({tuple(labels) for _, labels in named}) == 1:
        figure.legend(*named[0], loc="outside upper left", ncols=4)
        return
    for axes, (_, labels) in zip(panels, legends, strict=True):
        if any(labels):
            axes.legend(fontsize=8.5, handlelength=1.4)


def _part_stages(axes: Axes, run: Outcome) -> None:
    for name, began in run.stages()[1:]:
        axes.axvline(began, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(name, (began, 1), (3, -2), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                      va="top", fontsize=8, color=MUTED)


def _nothing(why: str, narrow: bool) -> Figure:
    figure = Figure((NARROW if narrow else WIDE, 1.0))
    figure.text(0.5, 0.5, why, ha="center", va="center", color=MUTED)
    return figure
