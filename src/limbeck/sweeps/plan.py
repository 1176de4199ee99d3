"""A bench: methods x pairs x seeds, from one YAML file, as runs in one folder.

    folder: runs/bench
    common: {data: digits, training: {epochs: 5}}         # what all runs share
    teachers:                                             # trained first, into runs/bench/teachers/NAME
      large: {student: digits_large}
    pairs:
      large-small: {teacher: large, student: digits_small}
    methods:                                              # a list of names does too: [none, kd, at]
      alone: {method: none}
      kd: {method: {name: kd, temperature: 2}, pairs: {large-small: {recipe: {paper: 97.1}}}}
      distpro: {method: distpro, process: {file: once}}
    searches:                                             # done once for each pair, into runs/bench/searches/NAME/PAIR
      once: {method: distpro, search: {epochs: 2}}
    lengths: [2, 5, 10]                                   # each method at each length, in epochs
    vary: {optimizer.lr: [0.05, 0.1]}                     # and at each value of any setting
    seeds: [0, 1, 2]
    recipes: [recipes/distpro/table1-reviewkd.yaml]       # rows with pairs of their own

What stands later is on top: common, method, pair, the method's own settings of that pair, what is varied, `--set`. A
run's folder is `runs/bench/METHOD/PAIR/SEED`, with `epochs-5,lr-0.1` before the seed where settings vary. Runs that
would be the same, as a student alone in two pairs, are done once. Neither teachers nor searches vary: one process
serves all lengths and seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator

from limbeck import wiring
from limbeck.config import (
    NULL,
    CacheSettings,
    Job,
    Settings,
    job_of,
    merged,
    read_job,
    read_yaml,
    sections,
    validated,
)
from limbeck.errors import Mistake, nearest
from limbeck.jobs import check
from limbeck.jobs.parts import Verb
from limbeck.runs import Run
from limbeck.sweeps.recipes import pairs_of

_Found = TypeVar("_Found")
_LABEL = re.compile(r"[\w.+-]+")
_TEACHERS, _SEARCHES = "teachers", "searches"
_UNFIT = re.compile(r"[^\w.+-]+")
_NO_TEACHERS = ("teacher", "networks", "method", "search", "process", "cache", "recipe")  # of no use to teachers


class Bench(Settings):
    """A sweep's file."""

    folder: str
    common: dict[str, Any] = Field({})
    teachers: dict[str, dict[str, Any]] = Field({})
    pairs: dict[str, dict[str, Any]] = Field({})
    methods: dict[str, dict[str, Any]] = Field({})
    searches: dict[str, dict[str, Any]] = Field({})
    lengths: list[Annotated[float, Field(gt=0)]] = Field([])
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    seeds: list[int] = Field([0], min_length=1)
    recipes: list[str] = Field([])

    @field_validator("methods", mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        """Read `[none, kd]`, and `kd: kd`."""
        entries = {str(name): name for name in value} if isinstance(value, list) else value
        if not isinstance(entries, dict):
            return entries
        return {label: {"method": entry} if isinstance(entry, str) else entry for label, entry in entries.items()}

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        return list(dict.fromkeys(value))


@dataclass(frozen=True)
class Piece:
    """One run of a sweep.

    Attributes:
        name: What it is called; its folder below the sweep's.
        verb: What is done.
        job: Its settings.
        after: The run that must be finished first, if any.
    """

    name: str
    verb: Verb
    job: Job
    after: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What makes a run what it is: not where it was printed."""
        return self.verb, self.job.model_dump_json(exclude={"recipe"})


@dataclass
class Plan:
    """The runs of a sweep, each once, and what is wrong with them.

    Attributes:
        folder: Of the sweep.
        pieces: By name, in the order in which they are done.
        same: Names of runs that another one does too, and that one's name.
        wrong: Mistakes, each with the first place at which it was made.
    """

    folder: Path
    pieces: dict[str, Piece] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Every run and how far it is, a line each."""
        lines = [f"{name}  {self._state(self.run(piece))}" for name, piece in self.pieces.items()]
        return "\n".join([*lines, *(f"{name}  the same as {twin}" for name, twin in self.same.items())])

    @staticmethod
    def _state(run: Run) -> str:
        return "finished" if run.finished else "begun" if run.checkpoint.is_file() else "to do"

    def run(self, piece: Piece) -> Run:
        """A piece's folder."""
        return Run(self.folder / piece.name)

    def attempt(self, where: str, look: Callable[[], _Found]) -> _Found | None:
        """What `look` returns; None where that is a mistake, which is kept, or several."""
        try:
            return look()
        except Mistake as mistake:
            for one in re.split(r"\n(?! )", str(mistake)):  # lines that go on with one are indented
                self.wrong.setdefault(one, where)
            return None

    def fits(self, where: str, look: Callable[[], object]) -> bool:
        """Whether `look` finds no mistake; what it finds is kept."""
        return self.attempt(where, lambda: (look(), True)) is not None

    def add(self, piece: Piece) -> None:
        """Take a piece, unless the same run is there already; its folder must be free, or hold it."""
        twin = self._names.setdefault(piece.key, piece.name)
        if twin != piece.name:
            self.same[piece.name] = twin
            return
        self.pieces[piece.name] = piece
        self.attempt(piece.name, partial(self.run(piece).holds, piece.job))

    def __post_init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}


def plan(files: Sequence[Path], *, folder: Path | None = None, seeds: Sequence[int] = (),
         over: Mapping[str, Any] | None = None) -> Plan:
    """Everything that a bench, or some recipes, ask for; all of it checked before anything runs.

    Args:
        files: One bench, or recipes.
        folder: In place of the bench's; recipes need one.
        seeds: In place of the bench's.
        over: Dotted key -> value, on top of every run's settings.

    Raises:
        Mistake: With all that is wrong at once.
    """
    bench = _bench(files, folder, seeds)
    made, flags = Plan(folder or Path(bench.folder)), dict(over or {})
    for label in (*bench.teachers, *bench.methods, *bench.pairs, *bench.searches):
        if not _LABEL.fullmatch(label):
            made.wrong[f"names become folders; '{label}' has other signs than letters, digits and . _ + -"] = "names"
    _teachers(made, bench, flags)
    _searches(made, bench, flags)
    for row, pair, read in _rows(made, bench):
        for label, varied in _variants(bench):
            where = "/".join(filter(None, (row, pair, label)))
            _row(made, bench, where, pair, partial(read, {**varied, **flags}))
    if made.wrong:
        lines = [f"{where}: {mistake}".replace("\n", "\n  ") for mistake, where in made.wrong.items()]
        raise Mistake("the sweep does not fit:\n  " + "\n  ".join(lines))
    return made


def _bench(files: Sequence[Path], folder: Path | None, seeds: Sequence[int]) -> Bench:
    trees = [read_yaml(file) for file in files]
    benches = [tree for tree in trees if {"methods", "recipes"} & tree.keys()]
    if benches and len(files) > 1:
        raise Mistake(f"a sweep takes one bench, or recipes; got {', '.join(map(str, files))}. Name recipes in the "
                      f"bench, under `recipes`.")
    if not benches and folder is None:
        raise Mistake("a sweep of recipes needs --folder, which takes their runs; none was given. Give one, or a "
                      "bench, which has `folder` and `methods`.")
    tree: dict[str, Any] = benches[0] if benches else {"folder": str(folder), "recipes": list(map(str, files))}
    bench = validated(Bench, {**tree, **({"seeds": list(seeds)} if seeds else {})})
    if bool(bench.methods) != bool(bench.pairs):
        raise Mistake(f"{files[0]}: methods are done on pairs; got {len(bench.methods)} methods and {len(bench.pairs)} "
                      f"pairs. Give both.")
    return bench


def _teachers(made: Plan, bench: Bench, flags: Mapping[str, Any]) -> None:
    own = {key: x for key, x in flags.items() if key.partition(".")[0] not in (*_NO_TEACHERS, "student")}
    common = {key: x for key, x in bench.common.items() if key not in _NO_TEACHERS}
    for label, settings in bench.teachers.items():
        name = f"{_TEACHERS}/{label}"
        job = made.attempt(name, partial(_piled, (common, settings, {"method": "none"}), own))
        if job is not None:
            made.fits(name, partial(check, "train", job))
            made.add(Piece(name, "train", job))


def _searches(made: Plan, bench: Bench, flags: Mapping[str, Any]) -> None:
    for label, settings in bench.searches.items():
        for pair, networks in bench.pairs.items():
            name = f"{_SEARCHES}/{label}/{pair}"
            job = made.attempt(name, partial(_piled, (bench.common, settings, networks), flags))
            if job is None:
                continue
            job, looked, after = _taught(made, bench, job)
            if made.fits(name, partial(check, "search", looked)):
                made.add(Piece(name, "search", job.model_copy(update={"seed": bench.seeds[0]}), after))


def _variants(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    """Every choice among what is varied: its label, `epochs-5,lr-0.1`, and its settings by dotted key."""
    axes = ({"training.epochs": bench.lengths} if bench.lengths else {}) | bench.vary
    choices = [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())]
    return [(",".join(f"{key.rpartition('.')[2]}-{_label(value)}" for key, value in choice.items()),
             {key: NULL if value is None else value for key, value in choice.items()}) for choice in choices]


def _label(value: Any) -> str:
    return _UNFIT.sub("_", f"{value:g}" if isinstance(value, float) else str(value))


def _rows(made: Plan, bench: Bench) -> list[tuple[str, str, Callable[[Mapping[str, Any]], Job]]]:
    """(method's label, pair's label, flags -> settings) of everything but teachers."""
    rows: list[tuple[str, str, Callable[[Mapping[str, Any]], Job]]] = []
    for label, entry in bench.methods.items():
        own = entry.get("pairs") or {}
        for stray in [pair for pair in own if pair not in bench.pairs]:
            made.wrong[f"there is no pair '{stray}'; {nearest(stray, bench.pairs)}"] = f"methods.{label}.pairs"
        plain = {key: value for key, value in entry.items() if key != "pairs"}
        rows += [(label, pair, partial(_piled, (bench.common, plain, settings, own.get(pair) or {})))
                 for pair, settings in bench.pairs.items()]
    files = list(map(Path, bench.recipes))
    stems = [*bench.methods, *(file.stem for file in files)]
    for file in files:
        label = file.stem if stems.count(file.stem) == 1 else f"{file.parent.name}-{file.stem}"
        pairs = made.attempt("recipes", partial(pairs_of, file)) or []
        rows += [(label, pair, partial(_of_recipe, file, pair or None)) for pair in pairs]
    return rows


def _piled(layers: Sequence[Mapping[str, Any]], flags: Mapping[str, Any]) -> Job:
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merged(tree, sections(layer))
    return job_of(tree, flags)


def _of_recipe(file: Path, pair: str | None, flags: Mapping[str, Any]) -> Job:
    return read_job(file, flags, pair)


def _row(made: Plan, bench: Bench, where: str, pair: str, read: Callable[[], Job]) -> None:
    """Add the runs of one method on one pair at one choice of what varies, a seed each."""
    job = made.attempt(where, read)
    if job is None:
        return
    if job.recipe.needs:
        made.wrong[f"it needs {job.recipe.needs}, which limbeck lacks; leave it out"] = where
    verb: Verb = "train" if job.method.name == "none" else "distill"
    needed = verb == "distill" and made.attempt(where, partial(wiring.needs_teacher, job.method.name))
    if not needed:
        job = job.model_copy(update={"teacher": None, "cache": CacheSettings()})
    job, looked, after = _taught(made, bench, job)
    if job.process.file in bench.searches and pair in bench.pairs:
        after = f"{_SEARCHES}/{job.process.file}/{pair}"
        after = made.same.get(after, after)
        job, looked = (one.model_copy(update={"process": one.process.model_copy(update={"file": file})})
                       for one, file in ((job, str(made.folder / after)), (looked, None)))
    if made.fits(where, partial(check, verb, looked)):
        for seed in bench.seeds:
            made.add(Piece(f"{where}/{seed}", verb, job.model_copy(update={"seed": seed}), after))


def _taught(made: Plan, bench: Bench, job: Job) -> tuple[Job, Job, str | None]:
    """A job with the bench's own teacher where it names one; one to be checked before that is there; and its run."""
    label = Path(job.teacher.name).name if job.teacher else ""
    looked, after = job, None
    if job.teacher is not None and label in bench.teachers and not job.teacher.weights:
        after = made.same.get(f"{_TEACHERS}/{label}", f"{_TEACHERS}/{label}")
        network = made.pieces[after].job.student if after in made.pieces else job.student
        looked = job.model_copy(update={"teacher": network})  # which stands for the run that is not there yet
        teacher = job.teacher.model_copy(update={"name": str(made.folder / after)})
        job = job.model_copy(update={"teacher": teacher})
    return job, looked, after
