"""The picture of how scores go with the number of networks that learn together (FFSD, Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from limbeck.errors import Mistake
from limbeck.evaluation.groups import ANY_RIGHT
from limbeck.report.grouping import METRICS, Row
from limbeck.report.look import NARROW, WIDE, line_style, styled
from limbeck.report.members import members_of, with_members


@styled
def students(table: Sequence[Row], *, narrow: bool = False) -> Figure:
    """A line for the mean of members, the ensemble, the fusion, the leader: mean score over seeds, ± its deviation.

    Right by any member is left out: it is no network's score and lies far above the others.

    Args:
        table: Rows of one method on one network, data and length, with different numbers of members.
        narrow: For a phone's screen.

    Raises:
        Mistake: If rows are of several methods or networks, two have the same number, or none is a group's.
    """
    rows = with_members([row for row in table if row.last is not None])
    apart = dict.fromkeys((row.outcomes[0].what, row.student, row.data, row.epochs, row.metric) for row in rows)
    counts = [len(row.counted[0].group[1]) for row in rows]
    if not rows or len(apart) > 1 or len(set(counts)) < len(counts) or not all(counts):
        raise Mistake(f"a picture of students shows one method on one network, each row with another number of them; "
                      f"got {[f'{row.what} of {row.student}: {n}' for row, n in zip(rows, counts, strict=True)]}. Give "
                      f"runs that differ in their number of students and seed alone.")
    placed = sorted(zip(counts, rows, strict=True), key=lambda pair: pair[0])
    figure = Figure((NARROW if narrow else 0.7 * WIDE, 3.8))
    axes = figure.subplots()
    shown = [name for name in members_of(rows) if name != ANY_RIGHT]
    for place, name in enumerate(shown):
        points = [(n, score) for n, row in placed if (score := row.members.get(name)) is not None]
        axes.errorbar([n for n, _ in points], [score.mean for _, score in points],
                      yerr=[score.deviation or 0.0 for _, score in points], marker="o", markersize=4.5, capsize=3,
                      label=name, **line_style(place))
    axes.set(xlabel="networks that learn together", ylabel=f"test {METRICS.get(rows[0].metric, rows[0].metric)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.06)
    axes.set_title(f"{rows[0].outcomes[0].what}, {rows[0].student}, {rows[0].data}")
    figure.legend(loc="outside right upper")
    return figure
