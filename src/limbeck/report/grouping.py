"""Rows of a table: runs that differ only in their seed, together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck.errors import Mistake, nearest
from limbeck.report.outcome import Outcome, read_all
from limbeck.runs import Run

METRICS = {"top1": "top-1", "top5": "top-5", "miou": "mIoU", "rmse": "RMSE ↓", "cross_entropy": "cross-entropy",
           "agreement": "agreement with the teacher",
           "pixel_accuracy": "pixel accuracy", "mae": "MAE ↓", "rel": "REL ↓", "delta1": "δ₁", "delta2": "δ₂",
           "delta3": "δ₃"}
"""Measures as they are printed, with an arrow where lower is better; others keep their key."""


@dataclass(frozen=True)
class Score:
    """One measure of several runs.

    Attributes:
        values: One a run.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return with_deviation(self.mean, self.deviation)


@dataclass(frozen=True)
class Comparison:
    """A row's last scores against those of another.

    Attributes:
        base: The other row.
        difference: Of the means.
        p: Of Welch's t-test, two-sided: how often chance alone would part two equal methods so far, taken for itself
            however many rows are compared; None for less than two runs of either, or no spread in both.
        counts: Runs of the row and of the other.
    """

    base: str
    difference: float
    p: float | None
    counts: tuple[int, int]

    def __str__(self) -> str:
        chance = "" if self.p is None else ", p < 0.001" if self.p < 0.001 else f", p = {self.p:.2g}"
        return f"{changed(self.difference)}{chance} (n = {self.counts[0]}, {self.counts[1]})"


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Attributes:
        what: The method, how its process is used, and what else sets this row apart from another.
        outcomes: The runs.
        compared: How it stands against a chosen method, where one was chosen; see `against`.
        members: Last scores of others in a group than the network that ships, where they were asked for; see
            `members.with_members`.
    """

    what: str
    outcomes: tuple[Outcome, ...]
    compared: Comparison | None = None
    members: Mapping[str, Score] = field(default_factory=dict)

    @property
    def counted(self) -> tuple[Outcome, ...]:
        """The runs whose scores count: the finished ones, or all of them while none is finished."""
        return tuple(outcome for outcome in self.outcomes if outcome.finished) or self.outcomes

    @property
    def finished(self) -> bool:
        """Whether the scores are those of finished runs."""
        return self.counted[0].finished

    @property
    def search(self) -> bool:
        """Whether these are searches, whose students are by-products."""
        return self.outcomes[0].verb == "search"

    @property
    def teacher(self) -> str | None:
        return self.outcomes[0].teacher

    @property
    def student(self) -> str:
        return self.outcomes[0].student

    @property
    def pair(self) -> str:
        """Teacher → student, or the student alone."""
        return f"{self.teacher} → {self.student}" if self.teacher else self.student

    @property
    def data(self) -> str:
        return self.outcomes[0].data

    @property
    def epochs(self) -> float:
        return self.counted[0].epochs

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs that count."""
        return tuple(dict.fromkeys(outcome.job.seed for outcome in self.counted))

    @property
    def metric(self) -> str:
        return next((outcome.metric for outcome in self.counted if outcome.last is not None), self.outcomes[0].metric)

    @property
    def last(self) -> Score | None:
        """Test score after the last epoch, or so far."""
        return _score(outcome.last for outcome in self.counted)

    @property
    def best(self) -> Score | None:
        """Test score of the epoch that the selection split likes best."""
        return _score(outcome.best for outcome in self.counted)

    @property
    def peak(self) -> Score | None:
        """Best test score of any epoch."""
        return _score(outcome.peak for outcome in self.counted)

    @property
    def paper(self) -> tuple[float, float | None] | None:
        """What the recipe's paper reports, and its deviation; of a search it reports nothing."""
        recipe = self.outcomes[0].job.recipe
        return None if recipe.paper is None or self.search else (recipe.paper, recipe.deviation)


def rows(folders: Iterable[Path]) -> list[Row]:
    """The table over runs, in the order in which the folders are given.

    Args:
        folders: Of runs, finished or not.

    Raises:
        Mistake: If there is none, or a folder is no run.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in read_all(folders):
        groups.setdefault(json.dumps([outcome.verb, _settings(outcome)], sort_keys=True), []).append(outcome)
    found = [Row(group[0].what, tuple(sorted(group, key=lambda o: o.job.seed))) for group in groups.values()]
    return [replace(row, what=row.what + _apart(row, found)) for row in found]


def against(table: Sequence[Row], method: str) -> list[Row]:
    """The rows, each beside what it is compared with: the row of a chosen method on the same student, data and length.

    A student alone, which has no teacher, is compared where there is one such row.

    Args:
        table: The rows.
        method: What the chosen method's rows are called.

    Raises:
        Mistake: If no row is called so.
    """
    bases = [row for row in table if row.what == method]
    if not bases:
        raise Mistake(f"--against takes a method of the table; got '{method}'; "
                      f"{nearest(method, dict.fromkeys(row.what for row in table))}")
    return [replace(row, compared=_compared(row, [base for base in bases if _comparable(row, base)])) for row in table]


def _comparable(row: Row, base: Row) -> bool:
    same = (row.student, row.data, row.epochs, row.metric) == (base.student, base.data, base.epochs, base.metric)
    return same and row is not base and (row.teacher == base.teacher or None in (row.teacher, base.teacher))


def _compared(row: Row, bases: Sequence[Row]) -> Comparison | None:
    if len(bases) != 1 or row.last is None or bases[0].last is None:
        return None
    ours, theirs = row.last, bases[0].last
    p = None
    if ours.deviation is not None and theirs.deviation is not None and max(ours.deviation, theirs.deviation) > 0:
        from scipy.stats import ttest_ind

        p = float(ttest_ind(ours.values, theirs.values, equal_var=False).pvalue)
    return Comparison(bases[0].what, ours.mean - theirs.mean, p, (len(ours.values), len(theirs.values)))


def names(table: Sequence[Row]) -> list[str]:
    """A short name for each row: the method, and beside it only what tells it from another row."""
    spellings = [[row.what, f"{row.what}, {row.student}", f"{row.what}, {row.student}, {row.data}",
                  f"{row.what}, {row.pair}, {row.data}, {row.epochs:.3g} epochs"] for row in table]
    taken = [name for spelling in spellings for name in set(spelling)]
    return [next((name for name in spelling if taken.count(name) == 1), spelling[-1]) for spelling in spellings]


def changed(difference: float) -> str:
    """`+0.42`; a difference that two decimals do not show, with four."""
    return f"{difference:+.{2 if abs(difference) >= 0.005 else 4}f}"


def with_deviation(mean: float, deviation: float | None) -> str:
    """`76.36 ± 0.07`; below 1, as errors are, with four decimals."""
    places = 2 if abs(mean) >= 1 or mean == 0 else 4
    return f"{mean:.{places}f}" + ("" if deviation is None else f" ± {deviation:.{places}f}")


def _score(values: Iterable[float | None]) -> Score | None:
    measured = tuple(value for value in values if value is not None)
    return Score(measured) if measured else None


# --- which runs belong together, and what tells rows apart

_UNCOUNTED = {"seed", "recipe", "cache"}


def _settings(outcome: Outcome) -> dict[str, Any]:
    """All settings but the seed. A replayed process counts by how it was searched, as each seed may have its own.

    A cache counts by what it stores, not by where it lies.
    """
    settings = outcome.job.model_dump(mode="json", exclude=_UNCOUNTED)
    cache = outcome.job.cache
    if cache.folder is not None:
        stored = cache.model_dump(mode="json", exclude={"folder", "gib", "batch_size"}, exclude_defaults=True)
        settings["cache"] = {"cached": True, **stored}
    file = outcome.job.process.file
    if file is not None:
        searched = [folder for folder in (Path(file), Path(file).parent) if Run(folder).config.is_file()]
        if searched:
            settings["process"]["file"] = Run(searched[0]).job().model_dump(mode="json", exclude=_UNCOUNTED)
    return settings


def _apart(row: Row, table: Sequence[Row]) -> str:
    """The settings that differ from those of rows which would look the same, in brackets."""
    alike = [_flat(_settings(other.outcomes[0])) for other in table if _looks(other) == _looks(row)]
    own = _flat(_settings(row.outcomes[0]))
    differing = [f"{key.rpartition('.')[2]}={value}" for key, value in own.items()
                 if value is not None and any(other.get(key) != value for other in alike)]
    shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
    return f" ({shown})" if shown else ""


def _looks(row: Row) -> tuple[Any, ...]:
    return row.what, row.teacher, row.student, row.data, row.epochs


def _flat(tree: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return flat
