"""What a run's folder tells, finished or not: the raw material of tables, plots and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from limbeck.config import Job
from limbeck.errors import Mistake
from limbeck.runs import Run

_VERBS = ("train", "distill", "search")
_NO_SCORES = ("kind", "stage", "epoch", "step")
_OF = " of "
LOWER = ("rmse", "mae", "rel", "cross_entropy")
"""Measures that are better the lower they are; so are those over all pixels, `pixel_rmse` and so on."""
_PROCESS_USES = {"equal": "equally weighted", "final": "final weights"}


@dataclass(frozen=True)
class Outcome:
    """One run, as far as it got.

    Attributes:
        folder: Where it is.
        job: Its settings.
        records: What it measured, in order.
        result: Its final scores; empty while it is not finished.
        about: What it was made of and on.
    """

    folder: Path
    job: Job
    records: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any]
    about: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Read a run's folder.

        Raises:
            Mistake: If it is no run.
        """
        run = Run(Path(folder))
        if not run.config.is_file():
            inside = sorted(path.parent.name for path in run.folder.glob("*/config.yaml"))
            hint = (f"It holds the runs {inside[:5]}{' and more' if len(inside) > 5 else ''}: give {run.folder}/*."
                    if inside else "Give a folder that --run named.")
            given = "it holds no config.yaml" if run.folder.is_dir() else "there is no such folder"
            raise Mistake(f"a report needs folders of runs; {run.folder} is none: {given}. {hint}")
        result, about = run.read_json("result.json"), run.read_json("about.json")
        return cls(run.folder, run.job(), tuple(run.records()), result, about)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result)

    @property
    def verb(self) -> str:
        """`train`, `distill` or `search`."""
        known = [self.result.get("verb"), self.about.get("verb"), *(self.about.get("command") or [])[1:2]]
        return next((word for word in known if word in _VERBS), "distill" if self.job.teacher else "train")

    @property
    def what(self) -> str:
        """The method, and how its process is used where that is a choice."""
        method, process = self.job.method.name, self.job.process
        if self.verb == "search":
            return "search" if method == "distpro" else f"search of {method}"
        if method != "distpro" and process.file is None and process.use == "whole":
            return method
        use = _PROCESS_USES.get(process.use, "" if method == "distpro" else "searched process")
        return f"{method}, {use}" if use else method

    @property
    def student(self) -> str:
        return _network(self.job.student.name)

    @property
    def teacher(self) -> str | None:
        return _network(self.job.teacher.name) if self.job.teacher else None

    @property
    def data(self) -> str:
        """The data set's name without the folder that it lies in."""
        kind, _, place = self.job.data.source.partition(":")
        name = (self.about.get("data") or {}).get("name")
        return str(name or (kind if place and kind != "hf" else self.job.data.source)).rstrip("/").rpartition("/")[2]

    @property
    def epochs(self) -> float:
        """How long the run is to be; a finished search's length is measured."""
        if self.verb != "search":
            return self.job.training.epochs
        if self.finished and self.done:
            return self.done
        return self.job.search.epochs or max(1.0, round(self.job.training.epochs / 6))

    @property
    def done(self) -> float:
        """Epochs of the present stage that are done."""
        return float(self.records[-1]["epoch"]) if self.records else 0.0

    @property
    def seconds(self) -> float:
        """Time that the run took so far; a resumed run's result knows the time since then only."""
        measured = sum(record.get("seconds", 0.0) for record in self.records)
        return max(float(self.result.get("seconds", 0.0)), measured)

    # --- scores

    @property
    def metric(self) -> str:
        """The measure that ranks networks here: the recipe's, or the first that was measured.

        A recipe may ask for other members than the deployed one: `top1 of fusion`, `top1 of student1 and student2`.
        """
        asked, last = self.job.recipe.metric, self._last()
        return asked if not last or _number(last, asked) is not None else next(iter(last))

    @property
    def measure(self) -> str:
        """The metric without whose it is."""
        return self.metric.partition(_OF)[0]

    @property
    def last(self) -> float | None:
        """Test score at the end, or so far."""
        return _number(self._last(), self.metric)

    @property
    def peak(self) -> float | None:
        """Best test score of any epoch."""
        if _OF not in self.metric or not self.finished:
            return _number((self.result.get("test") or {}).get("peak"), self.metric)
        stage = self.records[-1].get("stage")  # a result knows the peak of the deployed member only
        scored = [_number(record, self.metric) for record in self.records
                  if record.get("kind") == "test" and record.get("stage") == stage]
        top = min if lower_better(self.metric) else max
        return top((score for score in scored if score is not None), default=None)

    @property
    def best(self) -> float | None:
        """Test score of the epoch that the selection split likes best; None without such a split."""
        return _number((self.result.get("select") or {}).get("test_at_best"), self.metric)

    @property
    def teacher_score(self) -> float | None:
        """Test score of the teacher, where it is a run on the same data."""
        folder = Path(self.job.teacher.name) if self.job.teacher else None
        if folder is None or not Run(folder).config.is_file():
            return None
        teacher = Outcome.read(folder)
        return teacher.last if (teacher.data, teacher.metric) == (self.data, self.metric) else None

    @property
    def group(self) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Last test scores of everyone who answers, by name, and who of them learn together; nobody for one network."""
        last = self._last()
        return last.get("members") or {}, tuple(last.get("together") or ())

    def _last(self) -> Mapping[str, Any]:
        final = (self.result.get("test") or {}).get("last")
        tests = [record for record in self.records if record.get("kind") == "test"]
        last = final or (tests[-1] if tests else {})
        return {key: value for key, value in last.items() if key not in _NO_SCORES}

    # --- measurements over time

    def curve(self, kind: str, *path: str) -> tuple[list[float], list[float]]:
        """A measure over the run.

        Args:
            kind: Of the records: `train`, `test` or `select`.
            path: Key of the measure, and the key within it (`"losses", "ce"`).

        Returns:
            Epochs, counted on over all stages, and values; nan where a record lacks it, as for a term that was dropped.
        """
        found = [(epoch, record) for epoch, record in self._placed() if record.get("kind") == kind]
        return [epoch for epoch, _ in found], [_within(record, path) for _, record in found]

    def stages(self) -> list[tuple[str, float]]:
        """Each stage's name, and the epoch at which it began."""
        began: dict[str, float] = {}
        for epoch, record in self._placed():
            began.setdefault(str(record.get("stage", "")), epoch - record["epoch"])
        return list(began.items())

    def _placed(self) -> list[tuple[float, Mapping[str, Any]]]:
        placed, before, stage, end = [], 0.0, None, 0.0
        for record in self.records:
            if stage is not None and record.get("stage") != stage:
                before = end
            stage, end = record.get("stage"), before + record["epoch"]
            placed.append((end, record))
        return placed


def lower_better(metric: str) -> bool:
    """Whether a measure is better the lower it is, whoever's it is."""
    return metric.partition(_OF)[0].removeprefix("pixel_") in LOWER


def read_all(folders: Iterable[Path]) -> list[Outcome]:
    """Read runs, each once however often it is named.

    Raises:
        Mistake: If there is none, or a folder is no run.
    """
    outcomes = list({Path(folder).resolve(): Outcome.read(Path(folder)) for folder in folders}.values())
    if not outcomes:
        raise Mistake("a report needs at least one run; got no folder. "
                      "Give folders that --run named, for example runs/*.")
    return outcomes


def _network(name: str) -> str:
    """A network's name; that of the network inside where a run's folder stands in its place."""
    if Run(Path(name)).config.is_file():
        return _network(Run(Path(name)).job().student.name)
    return Path(name).name if name.startswith(("/", ".")) else name


def _within(record: Mapping[str, Any], path: tuple[str, ...]) -> float:
    scores: Any = record
    for key in path[:-1]:
        scores = scores.get(key) if isinstance(scores, Mapping) else None
    value = _number(scores, path[-1])
    return math.nan if value is None else value


def _number(scores: Any, metric: str) -> float | None:
    """A measure among scores, or the score itself where only that was kept; of several members, their mean."""
    measure, _, whose = metric.partition(_OF)
    if whose and isinstance(scores, Mapping):
        members = scores.get("members") or {}
        found = [_number(members.get(name, {}), measure) for name in whose.split(" and ")]
        return None if None in found else fmean(x for x in found if x is not None)
    value = scores.get(metric) if isinstance(scores, Mapping) else scores
    return None if value is None else float(value)
