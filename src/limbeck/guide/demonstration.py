"""The main job on the built-in digits: a teacher; a small student alone, by KD, and by DistPro, searched first."""

from __future__ import annotations

from pathlib import Path

from limbeck import jobs, report
from limbeck.config import read_job
from limbeck.jobs.parts import Verb

_TEACHER, _STUDENT = "digits_large", "digits_small"
_SHARED = {"data": "digits", "training.batch_size": 64, "optimizer.lr": 0.05, "schedule.kind": "cosine",
           "search.schedule.kind": "cosine",
           "process.scale": 1}  # the paper's; 27, the default, drowns the labels for a student of 4,000 parameters
_RUNS: dict[str, tuple[Verb, dict[str, object]]] = {
    "teacher": ("train", {"student": _TEACHER, "training.epochs": 15}),
    "student-alone": ("train", {"student": _STUDENT, "training.epochs": 15}),
    "kd": ("distill", {"student": _STUDENT, "method": "kd", "training.epochs": 15}),
    "search": ("search", {"student": _STUDENT, "method": "distpro", "search.epochs": 5}),
    "distpro": ("distill", {"student": _STUDENT, "method": "distpro", "training.epochs": 15}),
    "distpro-equal": ("distill", {"student": _STUDENT, "method": "distpro", "process.use": "equal",
                                  "training.epochs": 15}),
}


def demonstrate(folder: Path, *, quick: bool = False, quiet: bool = False) -> str:
    """Run everything, draw it, and return the table.

    Args:
        folder: Takes a run each in a folder of its own, and `report.html`. Finished runs are not run again.
        quick: One epoch each: a check that everything works, not a comparison.
        quiet: Show nothing on the way.
    """
    for name, (verb, flags) in _RUNS.items():
        more: dict[str, object] = {} if verb == "train" else {"teacher": str(folder / "teacher")}
        if name == "distpro":
            more["process.file"] = str(folder / "search")
        if quick:
            more |= {"search.epochs": 1, "training.epochs": 2, "training.check_teacher": False}
        jobs.execute(verb, read_job(None, {**_SHARED, **flags, **more}), folder / name, device="cpu", quiet=quiet)
    runs = [folder / name for name in _RUNS]
    page = report.write_page(runs, folder / "report.html", title="limbeck on the digits")
    return f"{report.as_text(report.rows(runs))}\nThe page with curves and the searched process: {page}"
