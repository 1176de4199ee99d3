"""Scores of a group's members beside that of the network that ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from limbeck.evaluation.groups import ANY_RIGHT, MEAN
from limbeck.report.grouping import Row, Score
from limbeck.report.outcome import Outcome


def with_members(table: Sequence[Row]) -> list[Row]:
    """The rows, each with the last scores of those beside the network that ships: see `scores_of`."""
    return [replace(row, members=_scores(row)) for row in table]


def members_of(table: Sequence[Row]) -> list[str]:
    """Whose scores the rows have: the mean, the ensemble, then who else there is, the union last."""
    found = dict.fromkeys(name for row in table for name in row.members)
    ends = {MEAN: -2, "ensemble": -1, ANY_RIGHT: 1}
    return sorted(found, key=lambda name: ends.get(name, 0))


def scores_of(run: Outcome, *, each: bool = False) -> dict[str, float]:
    """The run's measure, of `MEAN` and of who is more than one of those who learn together: ensemble, fusion, leader.

    Args:
        run: A run of a group; any other gives nothing.
        each: Those who learn together as well, one by one.
    """
    members, together = run.group
    measure = run.measure
    found = {name: float(scores[measure]) for name, scores in members.items() if measure in scores}
    own = [found[name] for name in together if name in found]
    mean = {MEAN: fmean(own)} if own else {}
    return mean | {name: score for name, score in found.items() if each or name not in together}


def _scores(row: Row) -> dict[str, Score]:
    found = [scores_of(run) for run in row.counted]
    return {name: Score(tuple(scores[name] for scores in found if name in scores))
            for name in dict.fromkeys(name for scores in found for name in scores)}
