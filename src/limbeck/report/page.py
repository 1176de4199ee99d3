"""The report: one HTML file that needs nothing else, for a wide screen, a phone and paper, by day and by night."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from limbeck import __version__
from limbeck.config import as_yaml
from limbeck.files import write_whole
from limbeck.progress import duration
from limbeck.recorded import Recorded
from limbeck.report import plots
from limbeck.report.grouping import METRICS, Row, names, rows
from limbeck.report.inline import inline
from limbeck.report.outcome import Outcome
from limbeck.report.sheet import SHEET
from limbeck.report.tables import cells
from limbeck.runs import Run

_NOTES = {
    "test": "The score is that of the last epoch on the test split; nothing was chosen by it.",
    "best": "<i>Best by selection</i> is the test score of the epoch that the selection split likes best.",
    "peak": "<i>Peak test</i> is the highest test score of any epoch: many papers print it, but it is "
            "chosen by the test split itself.",
    "±": "± is the standard deviation over seeds (n − 1).",
}
"""What a table's words mean, where it has them."""


def write_page(folders: Iterable[Path], out: Path, *, title: str = "Distillation report") -> Path:
    """Write a report on runs into one file, without scripts and without anything from elsewhere.

    Args:
        folders: Of runs, finished or not.
        out: The file, or a folder that is to hold `report.html`.
        title: At its top.

    Returns:
        The file.

    Raises:
        Mistake: If there is no run, a folder is no run, or the file cannot be written.
    """
    table = rows(folders)
    file = Path(out) / "report.html" if Path(out).is_dir() else Path(out)
    sections = (_gains, _scores, _training, _processes, _runs)
    parts = [_head(table, title), *(section(table) for section in sections), _foot()]
    write_whole(file, _DOCUMENT.format(title=escape(title), sheet=SHEET, body="\n".join(filter(None, parts))))
    return file


_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{sheet}</style>
</head>
<body>
{body}
</body>
</html>
"""


# --- the sections


def _head(table: Sequence[Row], title: str) -> str:
    runs = [run for row in table for run in row.outcomes]
    open_ones = sum(not run.finished for run in runs)
    facts = [_count(len(runs), "run") + (f" ({open_ones} not finished)" if open_ones else ""),
             *dict.fromkeys(row.data for row in table), *dict.fromkeys(row.pair for row in table if row.teacher),
             f"{duration(sum(run.seconds for run in runs))} of computing", date.today().isoformat()]
    return (f'<header><p class="mark">limbeck</p>\n<h1>{escape(title)}</h1>\n'
            f'<p class="facts">{" · ".join(map(escape, facts))}</p></header>')


def _gains(table: Sequence[Row]) -> str:
    """What each method adds to its student alone: a tile each, where there is such a student to compare with."""
    parts = []
    done = [row for row in table if row.finished and row.last]
    for alone in (row for row in done if row.what == "none" and row.teacher is None):
        taught = [row for row in done if row.outcomes[0].verb == "distill" and _comparable(row) == _comparable(alone)
                  and row is not alone]
        if taught:
            parts.append(_tiles(alone, taught))
    return "\n".join(parts)


def _comparable(row: Row) -> tuple[Any, ...]:
    return row.student, row.data, row.epochs, row.metric


def _tiles(alone: Row, taught: Sequence[Row]) -> str:
    assert alone.last is not None
    tiles = [*_teacher_tile(taught[0]), f"<li><b>{alone.last.mean:.2f}</b><span>{escape(alone.student)} alone</span>"
             f"<small>{METRICS.get(alone.metric, alone.metric)}, {_count(len(alone.seeds), 'seed')}</small></li>"]
    for row in taught:
        assert row.last is not None
        gain = f"{row.last.mean - alone.last.mean:+.2f}".replace("-", "−")
        tiles.append(f'<li class="own"><b>{gain}</b><span>{escape(row.what)}</span>'
                     f"<small>{row.last.mean:.2f}, {_count(len(row.seeds), 'seed')}</small></li>")
    few = min(len(row.seeds) for row in (alone, *taught)) < 3
    doubt = '<p class="note">With fewer than three seeds a small difference can be chance.</p>' if few else ""
    return f'<ul class="gains">{"".join(tiles)}</ul>{doubt}'


def _teacher_tile(row: Row) -> list[str]:
    known = row.counted[0].result.get("teacher") or {}
    if known.get(row.metric) is None:
        return []
    return [f"<li><b>{known[row.metric]:.2f}</b><span>{escape(row.teacher or '')}, the teacher</span>"
            f"<small>{METRICS.get(row.metric, row.metric)}</small></li>"]


def _scores(table: Sequence[Row]) -> str:
    picture = _picture(lambda narrow: plots.scores(table, narrow=narrow),
                       "Each dot is a run, the bar their mean. Unfinished runs are in the table only.")
    headers, lines = cells(table)
    words = " ".join([*headers, *(text for line in lines for text in line)])
    notes = " ".join(note for word, note in _NOTES.items() if word in words)
    return _section("Scores", picture if any(row.last for row in table) else "", _table(headers, lines),
                    f'<p class="note">{notes}</p>')


def _table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    kinds = ["" if i < 3 or header == "measure" else ' class="number score"' if header.startswith("test") else
             ' class="number"' for i, header in enumerate(headers)]
    head = "".join(f"<th{kind}>{escape(header)}</th>" for header, kind in zip(headers, kinds, strict=True))
    body = "\n".join("<tr>" + "".join(f'<td{kind} data-label="{escape(header)}">{escape(text)}</td>'
                                      for header, text, kind in zip(headers, line, kinds, strict=True)) + "</tr>"
                     for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _training(table: Sequence[Row]) -> str:
    if not any(row.last for row in table):
        return _section("Training", "<p>No epoch is scored yet.</p>")
    return _section("Training", _picture(
        lambda narrow: plots.curves(table, narrow=narrow),
        "Test split after each epoch; the mean over seeds, the range from lowest to highest behind it. The numbers are "
        "those of the last epoch. The axes hold the second half of training; what is before may lie outside."))


def _processes(table: Sequence[Row]) -> str:
    """A picture for every process that a run found or replays, each once."""
    parts, shown = [], set()
    for row, name in zip(table, names(table), strict=True):
        for run in row.outcomes:
            file = _process_file(run)
            if file is not None and file.resolve() not in shown:
                shown.add(file.resolve())
                parts.append(_process(file, run, name))
    return _section("What the search found", *parts) if parts else ""


def _process_file(run: Outcome) -> Path | None:
    """The process that a run found, in its folder or in that of a search inside, or the one that it replays."""
    given = run.job.process.file
    found = [Run(run.folder).process, *sorted(run.folder.glob("*/process.safetensors"))]
    places = [*found, *([Run(Path(given)).process, Path(given)] if given else [])]
    return next((place for place in places if place.is_file()), None)


def _process(file: Path, run: Outcome, name: str) -> str:
    recorded, settings = Recorded.load(file), run.job.process
    threshold = settings.threshold if settings.clip in ("mask", "renormalise") else None  # others compute every term
    of = f"{name}, seed {run.job.seed}: " if file.parent == run.folder else ""
    caption = (f"{of}{_count(len(recorded.names), 'searched term')}, {len(recorded.raw):,} recorded steps, "
               f"normalised by {recorded.normaliser}. Areas lie on top of each other; an area's height is a term's "
               f"weight.")
    if threshold is not None:
        caption += f" Where it is faint, its raw weight is {threshold:g} or less: no replay computes it."
    return _picture(lambda narrow: plots.process(recorded, threshold=threshold, narrow=narrow), caption)


def _runs(table: Sequence[Row]) -> str:
    return _section("Runs", *(_row(row, name) for row, name in zip(table, names(table), strict=True)))


def _row(row: Row, name: str) -> str:
    """Everything on a row's runs, folded away; curves of its first run only."""
    score = str(row.last) if row.last else "not scored yet"
    facts = f"{row.pair} · {score} · {_count(len(row.outcomes), 'run')}"
    first, pictures = row.counted[0], ""
    if first.curve("train", "loss")[0]:
        of = f"seed {first.job.seed}."
        pictures = (_picture(lambda narrow: plots.losses(first, narrow=narrow),
                             f"Training loss of each term before its weight; {of}")
                    + _picture(lambda narrow: plots.rates(first, narrow=narrow), f"Learning rate and speed; {of}"))
    return (f"<details><summary><b>{escape(name)}</b><span>{escape(facts)}</span></summary>\n"
            f"<div>{''.join(map(_run, row.outcomes))}{pictures}</div></details>")


def _run(run: Outcome) -> str:
    command = run.about.get("command") or []
    repeat = (f'<p class="note">To repeat it, with another --run:</p><pre class="command">'
              f"{escape(shlex.join([Path(command[0]).name, *map(str, command[1:])]))}</pre>" if command else "")
    about = {key: value for key, value in run.about.items() if key != "command"}
    return (f"<h3>Seed {run.job.seed}</h3>\n{_facts(_told(run))}{repeat}"
            f"{_folded('Settings', _settings(run))}"
            + (_folded("Environment", _facts(_flat(about))) if about else ""))


def _settings(run: Outcome) -> str:
    """What was set, and folded away what was not."""
    chosen = run.job.model_dump(mode="json", exclude_defaults=True)
    return _facts(_flat(chosen)) + _folded("All, defaults included", f"<pre>{escape(as_yaml(run.job))}</pre>")


def _told(run: Outcome) -> dict[str, str]:
    """The facts of one run, those that are known."""
    teacher = run.result.get("teacher") or {}
    speeds = [speed for speed in run.curve("train", "images_per_second")[1] if speed == speed]
    told: dict[str, Any] = {
        "folder": run.folder,
        "state": "finished" if run.finished else f"{run.done:g} of {run.epochs:g} epochs",
        "test, last": None if run.last is None else f"{run.last:.2f} {METRICS.get(run.metric, run.metric)}",
        "teacher": f"{teacher['name']}, {teacher['top1']:.2f} top-1" if teacher.get("top1") is not None else None,
        "parameters": f"{run.result['student_parameters']:,}" if run.result.get("student_parameters") else None,
        "time": duration(run.seconds) if run.seconds else None,
        "speed": f"{sum(speeds) / len(speeds):,.0f} images/s" if speeds else None,
    }
    return {key: str(value) for key, value in told.items() if value is not None}


def _foot() -> str:
    return (f"<footer>Written by limbeck {escape(__version__)}. "
            f"Everything is in this file: keep it, send it, print it.</footer>")


# --- the pieces


def _section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _picture(draw: Callable[[bool], Figure], caption: str) -> str:
    """A picture twice, of which the style sheet shows the one that fits the screen."""
    return (f'<figure><div class="wide">{inline(draw(False), label=caption)}</div>'
            f'<div class="narrow">{inline(draw(True), label=caption)}</div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary><div>{content}</div></details>"


def _facts(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in facts.items()) + "</dl>"


def _flat(tree: Mapping[str, Any], place: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{place}{key} ") if isinstance(value, Mapping) else {f"{place}{key}": f"{value}"}
    return flat


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
