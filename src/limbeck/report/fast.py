"""The picture of fast distillation: the score at the end of training against how long it was (DistPro, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure

from limbeck.report.grouping import METRICS, Row
from limbeck.report.lengths import Course, courses
from limbeck.report.look import MUTED, NARROW, WIDE, grid, line_style, styled


@styled
def lengths(table: Sequence[Row], *, narrow: bool = False) -> Figure:
    """A line a method, a panel for each pair and data set: mean over seeds of the last score, ± its deviation.

    A student alone, without a teacher, is grey, and in the panel of every pair with that student.

    Args:
        table: Rows of several lengths; searches are left out.
        narrow: For a phone's screen.

    Raises:
        Mistake: If no method was trained for two lengths.
    """
    every = courses(table)
    taught = [course for course in every if not course.alone] or every
    panels = list(dict.fromkeys((course.pair, course.data, course.metric) for course in taught))
    colors = {what: line_style(place) for place, what in enumerate(dict.fromkeys(course.what for course in taught))}
    figure, places = grid(len(panels), 1 if narrow else min(2, len(panels)), width=NARROW if narrow else
                          WIDE if len(panels) > 1 else 0.75 * WIDE, height=3.6)
    named: dict[str, Any] = {}
    for axes, (pair, data, metric) in zip(places, panels, strict=True):
        own = [course for course in every if course.metric == metric and course.data == data and
               (course.pair == pair or (course.alone and pair.endswith(f"→ {course.pair}")))]
        for course in own:
            style = {"color": MUTED, "linestyle": "-"} if course.alone else colors[course.what]
            named.setdefault("the student alone" if course.alone else course.what, _draw(axes, course, style))
        axes.set(title=fill(f"{pair}, {data}", 34 if narrow else 48), xlabel="length of training in epochs",
                 ylabel=f"test {METRICS.get(metric, metric)}")
        axes.set_xticks(sorted({epochs for course in own for epochs, _ in course.scores}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.05)
    figure.legend(named.values(), named, loc="outside lower left" if narrow else "outside right upper")
    return figure


def _draw(axes: Any, course: Course, style: dict[str, Any]) -> Any:
    epochs, scores = zip(*course.scores, strict=True)
    return axes.errorbar(epochs, [score.mean for score in scores], yerr=[score.deviation or 0.0 for score in scores],
                         marker="o", markersize=4.5, capsize=3, **style)
