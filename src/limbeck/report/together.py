"""The page's section on groups: everyone's score under their own name, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from limbeck.evaluation.groups import ANY_RIGHT, MEAN, SIMILARITY
from limbeck.report.grouping import METRICS, Row, Score, names
from limbeck.report.look import INK, MUTED, NARROW, PAPER, WIDE, line_style, styled, ticks
from limbeck.report.members import members_of, scores_of, with_members
from limbeck.report.outcome import Outcome
from limbeck.report.pieces import folded, picture, section, tabled

_MARKERS = ("o", "D", "s", "^", "v", "P", "X", "*")
_MARK: Mapping[str, Any] = {"s": 40, "linewidths": 0.8, "edgecolors": PAPER}
_BAR: Mapping[str, Any] = {"marker": "|", "s": 190, "linewidths": 2.4}
_NOTE = ("Mean of members is the mean score of the networks that learn together, ensemble the score of their mean "
         "logits. Any member right is the share of images that at least one of them gets right: papers print it as an "
         "ensemble’s accuracy, which it is not.")
_OF_ALIKE = " Alike: the mean cosine between two networks’ last maps (features), or logits, of the same test image."
_NAMED = (MEAN, "ensemble", ANY_RIGHT)


def groups(table: Sequence[Row]) -> str:
    """A picture and a table of all groups, and folded away everyone in each; nothing where there is no group."""
    found = [row for row in with_members(table) if row.members and not row.search]
    if not found:
        return ""
    shown = picture(lambda narrow: members(found, narrow=narrow),
                    "Everyone in a group who answers: grey, those who learn together, one by one, means over seeds.")
    whats = list(dict.fromkeys(what for row in found for what in _alike(row)))
    headers = ["method", "others", "what ships", *_NAMED, *(f"alike: {what}" for what in whats)]
    lines = [[name, _others(row), str(row.last or ""), *(str(row.members.get(who, "")) for who in _NAMED),
              *(str(_alike(row).get(what, "")) for what in whats)]
             for row, name in zip(found, names(found), strict=True)]
    return section("Groups", shown, tabled(headers, lines, texts=2, score="what ships"),
                   f'<p class="note">{_NOTE}{_OF_ALIKE if whats else ""}</p>',
                   *(_everyone(row, name) for row, name in zip(found, names(found), strict=True)))


def _others(row: Row) -> str:
    """Who else answers, each with its score."""
    return ", ".join(f"{who} {score}" for who, score in row.members.items() if who not in _NAMED)


def _everyone(row: Row, name: str) -> str:
    """A line for each member, with all that was measured of it."""
    scores: dict[str, dict[str, list[float]]] = {}
    for run in row.counted:
        for who, measures in run.group[0].items():
            for key, value in measures.items():
                scores.setdefault(who, {}).setdefault(key, []).append(float(value))
    people = [who for who in scores if not who.startswith(SIMILARITY)]
    keys = list(dict.fromkeys(key for who in people for key in scores[who]))
    lines = [[who, *(str(Score(tuple(scores[who][key]))) if key in scores[who] else "" for key in keys)]
             for who in people]
    parts = [tabled(["member", *(METRICS.get(key, key) for key in keys)], lines, texts=1)]
    pairs = {who: measures for who, measures in scores.items() if who.startswith(f"{SIMILARITY} of")}
    if pairs:
        parts.append(tabled(["how alike", "features", "logits"], [
            [who.removeprefix(f"{SIMILARITY} of "), *(str(Score(tuple(measures[what]))) if what in measures else ""
                                                      for what in ("features", "logits"))]
            for who, measures in pairs.items()], texts=1))
    first = row.counted[0]
    parts.append(picture(lambda narrow: over_epochs(first, narrow=narrow),
                         f"Every member after each epoch; seed {first.job.seed}."))
    return folded(f"{name}: every member", "".join(parts))


def _alike(row: Row) -> dict[str, Score]:
    found = [run.group[0].get(SIMILARITY, {}) for run in row.counted]
    return {what: Score(tuple(float(one[what]) for one in found if what in one))
            for what in dict.fromkeys(what for one in found for what in one)}


@styled
def members(table: Sequence[Row], *, narrow: bool = False) -> Figure:
    """A line for each group: its members in grey, the mean of them a bar, ensemble, fusion and others by a mark each.

    Right by any member is left out: it is no network's score and lies far above the others.

    Args:
        table: Rows of groups; see `members.with_members`.
        narrow: For a phone's screen.
    """
    figure = Figure((NARROW if narrow else WIDE, 1.3 + (0.5 if narrow else 0.36) * len(table)))
    axes = figure.subplots()
    marked = [who for who in members_of(table) if who != ANY_RIGHT]
    for place, row in enumerate(table):
        together = row.counted[0].group[1]
        own = [scores_of(run, each=True) for run in row.counted]
        each = [Score(tuple(one[who] for one in own if who in one)).mean for who in together if who in own[0]]
        axes.scatter(each, [place] * len(each), s=26, color=MUTED, alpha=0.55, linewidths=0, zorder=2)
        for who in (who for who in marked if who in row.members):
            how = _BAR if who == MEAN else {"marker": _MARKERS[marked.index(who) % len(_MARKERS)], **_MARK}
            axes.scatter([row.members[who].mean], [place], color=line_style(marked.index(who))["color"], label=who,
                         zorder=3, **how)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2 if narrow else 6, fontsize=9)
    measure = " or ".join(dict.fromkeys(METRICS.get(run.measure, run.measure) for row in table for run in row.counted))
    axes.set(yticks=range(len(table)), ylim=(len(table) - 0.4, -0.6), xlabel=f"test {measure}")
    axes.set_yticklabels(names(table), color=INK, fontsize=9.5)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.grid(True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8, steps=[1, 2, 2.5, 5, 10]))
    return figure


@styled
def over_epochs(run: Outcome, *, narrow: bool = False) -> Figure:
    """The test score of every member of a group after each epoch; right by any member is left out.

    Args:
        run: Of a group.
        narrow: For a phone's screen.
    """
    people = [who for who, scores in run.group[0].items() if who != ANY_RIGHT and run.measure in scores]
    figure = Figure((NARROW if narrow else WIDE, 3.6))
    axes = figure.subplots()
    for place, who in enumerate(people):
        axes.plot(*run.curve("test", "members", who, run.measure), label=who, **line_style(place))
    axes.set(xlabel="epoch", xlim=(0, None), ylabel=f"test {METRICS.get(run.measure, run.measure)}")
    ticks(axes, y=5, whole=True)
    figure.legend(loc="outside lower left" if narrow else "outside right upper", ncols=2 if narrow else 1)
    return figure
