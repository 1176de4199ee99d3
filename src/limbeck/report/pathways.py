"""The picture of a search: how the weights of its terms moved (DistPro, Figure 6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from limbeck.report.look import INK, MUTED, NARROW, PAPER, SERIES, WIDE, ramp_colors, styled, ticks, tint

if TYPE_CHECKING:
    from limbeck.process.recorded import Recorded

_PATHWAY = re.compile(r"t(?P<source>[^>]+)>s(?P<student>[^/]+)/(?P<transform>.+)")
_MOST_POINTS = 200
_MOST_NAMED = 8
_FAINT = 0.28  # opacity, not a tint: it must recede on a dark page too


@dataclass(frozen=True)
class _Panel:
    """Areas on top of each other.

    Attributes:
        title: What they have in common.
        members: Which terms, bottom first.
        colors: Theirs.
        labels: Theirs; several may share one.
    """

    title: str
    members: list[int]
    colors: list[str]
    labels: list[str]


@dataclass(frozen=True)
class _Course:
    """A search's rows, thinned out to what an eye can see.

    Attributes:
        progress: 0 to 1, (P,).
        weights: Normalised, (P, L).
        kept: Which terms a replay computes, (P, L).
        share: Part of the terms that a replay computes, averaged over every row.
    """

    progress: NDArray[np.float64]
    weights: NDArray[np.float64]
    kept: NDArray[np.bool_]
    share: float


@styled
def process(recorded: Recorded, *, threshold: float | None = 0.5, narrow: bool = False) -> Figure:
    """A searched process over the progress of its search, weights as areas on top of each other.

    First the total weight of each teacher tap; they add up to the total strength. Then a panel a teacher tap, with its
    pathways; or a single panel, for terms that are not named like pathways. Last, what share of the terms a replay
    computes. A faint area is a term at or below the threshold, which a replay leaves out.

    Args:
        recorded: What a search recorded.
        threshold: On the raw weights, at or below which a replay clips; None clips none.
        narrow: For a phone's screen: panels below each other.
    """
    course, panels = _course(recorded, threshold), _panels(recorded.names, recorded.weights.mean(0).tolist())
    overview, strip = len(panels) > 1, threshold is not None
    columns = 1 if narrow else min(len(panels), 4 if len(panels) == 4 else 3)
    lines = -(-len(panels) // columns)
    heights = [2.2] * overview + [2.2 if overview else 3.0] * lines + [1.2] * strip
    figure = Figure((NARROW if narrow else WIDE, sum(heights) + 0.6 + (1.6 if narrow else 0)))
    spots = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    if overview:
        _draw_totals(figure.add_subplot(spots[0, :]), panels, course, recorded.scale, narrow)
    shown: list[Axes] = []
    for place, panel in enumerate(panels):
        line, column = divmod(place, columns)
        shown.append(figure.add_subplot(spots[line + overview, column], sharey=shown[0] if shown else None))
        _draw_areas(shown[-1], panel, course, labelled=column == 0)
    _explain(shown[-1] if narrow else shown[columns - 1], panels, threshold if not course.kept.all() else None, narrow)
    if strip:
        what = "pathways" if all(map(_PATHWAY.fullmatch, recorded.names)) else "terms"
        _draw_share(figure.add_subplot(spots[-1, :]), course, what)
    figure.axes[-1].set_xlabel("progress of the search")
    return figure


def _course(recorded: Recorded, threshold: float | None) -> _Course:
    raw, weights = recorded.raw.double().numpy(), recorded.weights.double().numpy()
    kept = np.ones(raw.shape, bool) if threshold is None else raw > threshold
    rows = np.unique(np.linspace(0, len(raw) - 1, _MOST_POINTS).round().astype(int))
    if len(raw) == 1:
        rows = np.array([0, 0])
    return _Course(np.linspace(0, 1, len(rows)), weights[rows], kept[rows], float(kept.mean()))


# --- which terms belong together


def _panels(names: Sequence[str], strengths: Sequence[float]) -> list[_Panel]:
    """A panel a teacher tap; terms that are no pathways have one of their own."""
    found = [_PATHWAY.fullmatch(name) for name in names]
    sources = list(dict.fromkeys(match["source"] for match in found if match))
    students = list(dict.fromkeys(match["student"] for match in found if match))
    transforms = list(dict.fromkeys(match["transform"] for match in found if match))
    panels = []
    for source in sources:
        own = [(i, match) for i, match in enumerate(found) if match and match["source"] == source]
        colors = [tint(SERIES[students.index(m["student"]) % len(SERIES)],
                       0.6 * transforms.index(m["transform"]) / max(2, len(transforms) - 1)) for _, m in own]
        labels = [f"student {_tap(m['student'])}" + f", {m['transform']}" * (len(transforms) > 1) for _, m in own]
        panels.append(_Panel(f"Teacher {_tap(source)}", [i for i, _ in own], colors, labels))
    others = [i for i, match in enumerate(found) if not match]
    if others:
        panels.append(_plain(names, strengths, others, "Other terms" if panels else "Weights", len(students)))
    return panels


def _plain(names: Sequence[str], strengths: Sequence[float], members: list[int], title: str, taken: int) -> _Panel:
    """A panel of terms with any names, in colours from `taken` on; too many: the weakest share greys and a label."""
    ranked = sorted(members, key=lambda member: -strengths[member])
    weak = ranked[_MOST_NAMED:] if len(members) > _MOST_NAMED + 1 else []
    colors = [tint(MUTED, 0.35 + 0.25 * (i % 2)) if member in weak else
              SERIES[(taken + ranked.index(member)) % len(SERIES)] for i, member in enumerate(members)]
    return _Panel(title, members, colors, [f"{len(weak)} weaker ones" if m in weak else names[m] for m in members])


def _tap(short: str) -> str:
    return "stem" if short == "0" else f"stage {short}" if short.isdigit() else short


# --- drawing


def _draw_totals(axes: Axes, panels: Sequence[_Panel], course: _Course, scale: float, narrow: bool) -> None:
    colors = ramp_colors(len(panels))
    sums = np.stack([course.weights[:, panel.members].sum(1) for panel in panels], axis=1)
    tops = sums.cumsum(1)
    for i in range(len(panels)):
        axes.fill_between(course.progress, tops[:, i] - sums[:, i], tops[:, i], facecolor=colors[i], edgecolor=PAPER,
                          lw=0.5)
    handles: list[Patch | Line2D] = [Patch(color=color, label=panel.title[0].lower() + panel.title[1:])
                                     for panel, color in zip(panels, colors, strict=True)]
    lines = axes.plot(course.progress, tops[:, -1], color=INK, label="total strength")
    if not course.kept.all():
        computed = (course.weights * course.kept).sum(1)
        lines += axes.plot(course.progress, computed, color=INK, lw=1.3, ls=(0, (3, 1.5)), label="after clipping")
    _dress(axes)
    axes.set_title("Total weight of each teacher tap")
    axes.set_ylabel("weight" if scale == 1 else f"weight (× {scale:g} in loss)")
    _legend(axes, [*lines, *reversed(handles)], narrow)


def _draw_areas(axes: Axes, panel: _Panel, course: _Course, *, labelled: bool) -> None:
    own = course.weights[:, panel.members]
    tops = own.cumsum(1)
    for i, (member, color) in enumerate(zip(panel.members, panel.colors, strict=True)):
        bottom = tops[:, i] - own[:, i]
        axes.fill_between(course.progress, bottom, tops[:, i], facecolor=to_rgba(color, _FAINT), edgecolor=PAPER,
                          lw=0.4)
        axes.fill_between(course.progress, bottom, tops[:, i], where=course.kept[:, member], facecolor=color,
                          edgecolor=PAPER, lw=0.4)
    _dress(axes, crowded=True)
    axes.set_title(panel.title)
    axes.tick_params(labelleft=labelled)
    if labelled:
        axes.set_ylabel("weight")


def _explain(axes: Axes, panels: Sequence[_Panel], threshold: float | None, narrow: bool) -> None:
    """The legend of all panels, the top area first."""
    entries = {label: color for panel in panels for label, color in zip(panel.labels, panel.colors, strict=True)}
    handles = [Patch(color=color, label=label) for label, color in entries.items()]
    if threshold is not None:
        handles.insert(0, Patch(facecolor=to_rgba(MUTED, _FAINT), label=f"faint: raw weight ≤ {threshold:g}"))
    _legend(axes, handles[::-1], narrow)


def _draw_share(axes: Axes, course: _Course, what: str) -> None:
    axes.fill_between(course.progress, course.kept.mean(1), color=MUTED, alpha=0.35, lw=0, step="mid")
    axes.plot(course.progress, course.kept.mean(1), color=MUTED, lw=1.4, drawstyle="steps-mid")
    _dress(axes)
    axes.set(ylim=(0, 1.04), yticks=[0, 0.5, 1])
    axes.set_title(f"Computed in a replay: {100 * course.share:.0f} % of all {what}")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _dress(axes: Axes, *, crowded: bool = False) -> None:
    ticks(axes, y=4)
    axes.set(xlim=(0, 1), xticks=[0, 0.5, 1] if crowded else [0, 0.25, 0.5, 0.75, 1])
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_ylim(0, None, auto=True)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _legend(axes: Axes, handles: Sequence[Patch | Line2D], narrow: bool) -> None:
    axes.legend(handles=list(handles), loc="upper left", bbox_to_anchor=(-0.14, -0.2) if narrow else (1.02, 1.04),
                ncols=2 if narrow else 1, columnspacing=1.2, borderaxespad=0, handlelength=1.3, handleheight=0.9,
                fontsize=9)
