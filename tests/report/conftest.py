"""Folders of runs as training leaves them, made up: scores that rise, losses that fall, a search that moves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.config import Job
from limbeck.process import biased_softmax
from limbeck.process.recorded import Recorded
from limbeck.runs import Run

Make = Callable[..., Path]

PATHWAYS = tuple(f"t{t}>s{s}/{kind}" for t in (1, 2, 3) for s in (1, 2, 3) for kind in ("c2", "c3", "complex"))
TERMS = {"none": ["ce"], "kd": ["ce", "kl"], "reviewkd": ["ce", *(f"level{i}" for i in range(1, 5))],
         "distpro": ["ce", *PATHWAYS]}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run below the test's folder."""
    return lambda name, **settings: make_run(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs as `make demo` leaves them: a teacher, its student alone, three methods, a search."""
    place = tmp_path_factory.mktemp("shelf")
    alone = {"method": "none", "verb": "train", "teacher": None}
    few = ["ce", *PATHWAYS[:3]]  # panels take time to draw
    teacher = str(make_run(place / "teacher", **alone, student="resnet56", final=98.61))
    return [
        place / "teacher",
        *(make_run(place / f"alone{seed}", **alone, seed=seed, final=94.0 + seed) for seed in (0, 1)),
        *(make_run(place / f"kd{seed}", seed=seed, final=96.25 + seed, teacher=teacher) for seed in (0, 1)),
        make_run(place / "reviewkd", method="reviewkd", final=93.5, recipe={"paper": 95.25}, teacher=teacher),
        make_run(place / "search", method="distpro", verb="search", final=92.0, stages={"search": 3}, teacher=teacher,
                 terms=few),
        make_run(place / "distpro", method="distpro", final=97.5, teacher=teacher, terms=few,
                 process={"file": str(place / "search")}),
        make_run(place / "half", method="at", done=5, teacher=teacher),
    ]


def make_run(folder: Path, *, method: str = "kd", verb: str = "distill", seed: int = 0, final: float = 95.0,
             epochs: int = 12, done: int | None = None, teacher: str | None = "resnet56", student: str = "resnet20",
             select: bool = False, result: dict | None = None, stages: dict[str, int] | None = None,
             terms: list[str] | None = None, **settings: Any) -> Path:
    """A run's folder.

    Args:
        folder: Where.
        method: Name of the method; its terms are made up where they are not known.
        verb: `train`, `distill` or `search`.
        seed: Of the run and of the noise on its numbers.
        final: Its last test score.
        epochs: Its length.
        done: Epochs that are done; None is all, and then there is a result.
        teacher: Name of the teacher.
        student: Name of the student.
        select: Whether it has a selection split.
        result: In place of the result that follows from the rest.
        stages: Stage -> epochs, in place of a single stage.
        terms: Its terms, in place of those of the method.
        settings: Further sections of the job.
    """
    training = {"epochs": epochs, "select": 0.1 if select else 0.0} | settings.pop("training", {})
    job = Job.model_validate({"data": "digits", "student": student, "teacher": teacher, "method": method, "seed": seed,
                              "training": training, **settings})
    run, draw = Run(folder), random.Random(f"{method} {final} {seed}")
    run.start(job)
    scores: list[dict] = []
    terms = terms or TERMS.get(job.method.name, ["ce", "extra"])
    for stage, length in (stages or {job.method.name: epochs}).items():
        for epoch in range(1, (length if done is None else done) + 1):
            run.add_record(train_record(stage, epoch, length, terms, draw))
            scores.append(test_record("test", stage, epoch, length, final, draw))
            run.add_record(scores[-1])
            if select:
                run.add_record(test_record("select", stage, epoch, length, final - 0.5, draw))
    run.write_json("about.json", environment(verb, folder))
    if done is None:
        run.write_json("result.json", result or make_result(verb, scores, teacher, select))
    if verb == "search":
        drifting(40 * epochs).save(run.process)
    return folder


def train_record(stage: str, epoch: int, epochs: int, terms: list[str], draw: random.Random) -> dict:
    part = epoch / epochs
    losses = {term: (2.3 if term == "ce" else 0.4 + 0.13 * (i % 5)) * math.exp(-3 * part) + 0.05 + draw.uniform(0, 0.03)
              for i, term in enumerate(terms) if not (">s" in term and term.startswith("t1") and part > 0.6)}
    lr = 0.05 * 0.1 ** sum(part > drop for drop in (0.625, 0.75, 0.875))
    return {"kind": "train", "stage": stage, "epoch": float(epoch), "step": 23 * epoch, "seconds": 1.5,
            "images_per_second": 950 + draw.uniform(-40, 40), "lr": lr, "loss": sum(losses.values()), "losses": losses,
            "weights": dict.fromkeys(terms, 1.0)}


def test_record(kind: str, stage: str, epoch: int, epochs: int, final: float, draw: random.Random) -> dict:
    left = 0.0 if epoch == epochs else 1 - epoch / epochs
    top1 = final - (final - 12) * left ** 3 - (draw.uniform(-0.2, 1.2) if left else 0.0)
    return {"kind": kind, "stage": stage, "epoch": float(epoch), "step": 23 * epoch, "top1": top1,
            "top5": 100 - (100 - top1) / 6, "cross_entropy": (100 - top1) / 32 + 0.02}


def make_result(verb: str, scores: list[dict], teacher: str | None, select: bool) -> dict:
    def only(record: dict) -> dict:
        return {key: value for key, value in record.items() if key not in ("kind", "stage")}

    best = max(scores, key=lambda record: record["top1"])
    split = {"select": {"best": only(best), "test_at_best": only(best)}} if select else {}
    return {"verb": verb, "test": {"last": only(scores[-1]), "peak": only(best)}, **split, "seconds": 1.9 * len(scores),
            "steps": 23 * len(scores), "student_parameters": 272474, "peak_memory": 850 * 2**20,
            "teacher": {"name": teacher, "sample_accuracy": 99.9} if teacher else None}


def environment(verb: str, folder: Path) -> dict:
    return {"verb": verb, "limbeck": "0.1.0", "torch": "2.13.0", "python": "3.12.4", "commit": "0123456789ab",
            "device": "x86_64", "cores": 2,
            "command": ["/usr/bin/limbeck", verb, "--run", str(folder), "--set", "method.temperature=4"],
            "data": {"name": "digits", "fingerprint": "9f2c", "classes": 10, "train": 1437, "test": 360},
            "networks": {"student": {"name": "resnet20", "parameters": 272474}}}


def drifting(rows: int, names: tuple[str, ...] = PATHWAYS) -> Recorded:
    """A process in which low teacher taps are strong early and high ones late."""
    generator = torch.Generator().manual_seed(0)
    progress = torch.linspace(0, 1, rows)[:, None]
    place = torch.linspace(0, 1, len(names))[None]  # 0 the first term, 1 the last
    early, late = torch.sin(math.pi * (progress * 1.15).clamp(max=1.0)), progress**2
    tilt = 2.2 * early * (0.45 - place) + 2.6 * late * (place - 0.55)
    own = (torch.rand(len(names), generator=generator) - 0.5) * 2.4 * progress
    noise = torch.randn(rows, len(names), generator=generator).cumsum(0) * (0.35 / rows**0.5)
    raw = 1 + tilt + own + noise
    found = {"seed": 0, "commit": "0123456789ab"}
    return Recorded(names, raw, biased_softmax(raw), "biased-softmax", float(len(names)), ("ce",), found)
