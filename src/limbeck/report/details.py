"""The page's last section: of every run its settings, how to repeat it, its machine, its losses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from limbeck.config import as_yaml
from limbeck.progress import duration
from limbeck.report import plots
from limbeck.report.grouping import METRICS, Row, names, with_deviation
from limbeck.report.outcome import Outcome
from limbeck.report.pieces import counted, facts, flattened, folded, picture, section
from limbeck.training.memory import told


def every_run(table: Sequence[Row]) -> str:
    """The section with all runs, folded away."""
    return section("Runs", *(_row(row, name) for row, name in zip(table, names(table), strict=True)))


def _row(row: Row, name: str) -> str:
    """Everything on a row's runs, folded away; curves of its first run only."""
    score = str(row.last) if row.last else "not scored yet"
    short = f"{row.pair} · {score} · {counted(len(row.outcomes), 'run')}"
    first, pictures = row.counted[0], ""
    if first.curve("train", "loss")[0]:
        of = f"seed {first.job.seed}."
        pictures = (picture(lambda narrow: plots.losses(first, narrow=narrow),
                             f"Training loss of each term before its weight; {of}")
                    + picture(lambda narrow: plots.rates(first, narrow=narrow), f"Learning rate and speed; {of}"))
    return (f"<details><summary><b>{escape(name)}</b><span>{escape(short)}</span></summary>\n"
            f"<div>{''.join(map(_run, row.outcomes))}{pictures}</div></details>")


def _run(run: Outcome) -> str:
    again = shlex.join(["limbeck", run.verb, "--config", f"{run.folder}/config.yaml", "--run", f"{run.folder}-again"])
    return (f'<h3>Seed {run.job.seed}</h3>\n{facts(_told(run))}'
            f'<p class="note">To repeat it:</p><pre class="command">{escape(again)}</pre>'
            f"{folded('Settings', _settings(run))}"
            + (folded("Environment", facts(flattened(_environment(run)))) if run.about else ""))


def _environment(run: Outcome) -> dict[str, Any]:
    """What is recorded of the machine, with the command line as one would type it."""
    command = run.about.get("command")
    typed = {"command": shlex.join([Path(command[0]).name, *map(str, command[1:])])} if command else {}
    return {**run.about, **typed}


def _settings(run: Outcome) -> str:
    """What was set, and folded away what was not."""
    chosen = run.job.model_dump(mode="json", exclude_defaults=True)
    chosen["method"] = {"name": run.job.method.name} | chosen.get("method", {})
    return facts(flattened(chosen)) + folded("All, defaults included", f"<pre>{escape(as_yaml(run.job))}</pre>")


def _told(run: Outcome) -> dict[str, str]:
    """The facts of one run, those that are known."""
    measure = METRICS.get(run.metric, run.metric)
    speeds = [speed for speed in run.curve("train", "images_per_second")[1] if speed == speed]
    shown: dict[str, Any] = {
        "folder": run.folder,
        "state": "finished" if run.finished else f"{run.done:g} of {run.epochs:g} epochs",
        "test, last": None if run.last is None else f"{with_deviation(run.last, None)} {measure}",
        "teacher, last": None if run.teacher_score is None else f"{with_deviation(run.teacher_score, None)} {measure}",
        "parameters": f"{run.result['student_parameters']:,}" if run.result.get("student_parameters") else None,
        "time": duration(run.seconds) if run.seconds else None,
        "peak memory": told(run.result["peak_memory"]) if run.result.get("peak_memory") else None,
        "speed": f"{sum(speeds) / len(speeds):,.0f} images/s" if speeds else None,
    }
    return {key: str(value) for key, value in shown.items() if value is not None}
