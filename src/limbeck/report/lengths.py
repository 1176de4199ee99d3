"""Scores against the length of training: the picture of fast distillation, and how much sooner a method arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from limbeck.errors import Mistake, nearest
from limbeck.report.grouping import METRICS, Row, Score

LOWER = ("rmse", "rel", "cross_entropy")
"""Measures of which less is better."""


@dataclass(frozen=True)
class Course:
    """One method on one pair and data, trained for several lengths.

    Attributes:
        what: The method.
        pair: Teacher → student, or the student alone.
        data: What it is trained on.
        alone: Whether nobody teaches.
        metric: What is measured.
        scores: By length in epochs, the shortest first: last test scores, a run each.
    """

    what: str
    pair: str
    data: str
    alone: bool
    metric: str
    scores: tuple[tuple[float, Score], ...]

    def needs(self, score: float) -> float | None:
        """Epochs at which its mean reaches a score: on the line between the two lengths around it.

        None where no length reaches it; the shortest length where that does already.
        """
        sign = -1 if self.metric in LOWER else 1
        means = [(epochs, sign * found.mean) for epochs, found in self.scores]
        if means[0][1] >= sign * score:
            return means[0][0]
        for (shorter, low), (longer, high) in pairwise(means):
            if low < sign * score <= high:
                return shorter + (longer - shorter) * (sign * score - low) / (high - low)
        return None

    @property
    def shortest(self) -> float:
        return self.scores[0][0]

    @property
    def longest(self) -> float:
        return self.scores[-1][0]


def courses(table: Sequence[Row]) -> list[Course]:
    """Rows that differ in their length alone, together; searches and rows without a score are left out.

    Raises:
        Mistake: If no method was trained for two lengths.
    """
    found: dict[tuple[str, str, str, bool, str], dict[float, Score]] = {}
    for row in table:
        if row.last is not None and not row.search:
            key = row.what, row.pair, row.data, row.teacher is None and row.what.startswith("none"), row.metric
            found.setdefault(key, {})[row.epochs] = row.last
    if not any(len(scores) > 1 for scores in found.values()):
        raise Mistake("scores against lengths need a method that was trained for two lengths at least; got "
                      f"{[f'{what}: {sorted(scores)}' for (what, *_), scores in found.items()]} epochs. Give a sweep's "
                      f"runs with `lengths`, or runs of one method with several training.epochs.")
    return [Course(*key, tuple(sorted(scores.items(), key=lambda one: one[0]))) for key, scores in found.items()]


def sooner(table: Sequence[Row], method: str) -> tuple[list[str], list[list[str]]]:
    """How many epochs a method needs for what others reach at each of their lengths: headers and lines of a table.

    Args:
        table: Rows of several lengths.
        method: What the method is called in the table.

    Raises:
        Mistake: If no method of that name was trained for two lengths.
    """
    every = courses(table)
    fast = [course for course in every if course.what == method and len(course.scores) > 1]
    if not fast:
        raise Mistake(f"--sooner takes a method that was trained for two lengths at least; got '{method}'; "
                      f"{nearest(method, dict.fromkeys(course.what for course in every))}")
    measure = METRICS.get(every[0].metric, every[0].metric)
    headers = ["method", "teacher → student", "data", "epochs", f"test {measure}", f"epochs of {method}", "speed-up"]
    lines = []
    for course in every:
        own = [one for one in fast if (one.data, one.metric) == (course.data, course.metric)
               and (one.pair == course.pair or (course.alone and one.pair.endswith(f"→ {course.pair}")))]
        for epochs, score in course.scores if len(own) == 1 and course is not own[0] else ():
            needed, speed = _needed(own[0], score.mean, epochs)
            lines.append([course.what, course.pair, course.data, f"{epochs:.4g}", str(score), needed, speed])
    return headers, lines


def _needed(course: Course, score: float, epochs: float) -> tuple[str, str]:
    needed = course.needs(score)
    if needed is None:
        return f"not within {course.longest:.4g}", ""
    least = "at most " if needed == course.shortest else ""
    return f"{least}{needed:.3g}", f"{'at least ' if least else ''}{epochs / needed:.2f} x"
