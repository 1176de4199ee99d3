"""The report: one HTML file that needs nothing else, for a wide screen, a phone and paper, by day and by night."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from limbeck import __version__
from limbeck.files import write_whole
from limbeck.process.recorded import Recorded
from limbeck.progress import duration
from limbeck.report import plots
from limbeck.report.dense import said
from limbeck.report.details import every_run
from limbeck.report.grouping import METRICS, Row, changed, names, rows, with_deviation
from limbeck.report.outcome import Outcome
from limbeck.report.pieces import counted, picture, section, tabled
from limbeck.report.sheet import SHEET
from limbeck.report.tables import cells
from limbeck.report.together import groups
from limbeck.runs import Run

_NOTES = {
    "test": "The score is that of the last epoch on the test split; nothing was chosen by it.",
    "best": "<i>Best by selection</i> is the test score of the epoch that the selection split likes best.",
    "peak": "<i>Peak test</i> is the best test score of any epoch: many papers print it, but it is "
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
    sections = (_gains, _scores, groups, said, _training, _processes, every_run)
    parts = [_head(table, title), *(write(table) for write in sections), _foot()]
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
    facts = [counted(len(runs), "run") + (f" ({open_ones} not finished)" if open_ones else ""),
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
    tiles = [*_teacher_tile(taught[0]), f"<li><b>{with_deviation(alone.last.mean, None)}</b>"
             f"<span>{escape(alone.student)} alone</span>"
             f"<small>{METRICS.get(alone.metric, alone.metric)}, {counted(len(alone.seeds), 'seed')}</small></li>"]
    for row in taught:
        assert row.last is not None
        gain = changed(row.last.mean - alone.last.mean).replace("-", "−")
        tiles.append(f'<li class="own"><b>{gain}</b><span>{escape(row.what)}</span>'
                     f"<small>{with_deviation(row.last.mean, None)}, {counted(len(row.seeds), 'seed')}</small></li>")
    few = min(len(row.seeds) for row in (alone, *taught)) < 3
    doubt = '<p class="note">With fewer than three seeds a small difference can be chance.</p>' if few else ""
    return f'<ul class="gains">{"".join(tiles)}</ul>{doubt}'


def _teacher_tile(row: Row) -> list[str]:
    score = row.counted[0].teacher_score
    if score is None:
        return []
    return [f"<li><b>{with_deviation(score, None)}</b><span>{escape(row.teacher or '')}, the teacher</span>"
            f"<small>{METRICS.get(row.metric, row.metric)}</small></li>"]


def _scores(table: Sequence[Row]) -> str:
    shown = picture(lambda narrow: plots.scores(table, narrow=narrow),
                       "Each dot is a run, the bar their mean. Searches and unfinished runs are in the table only.")
    headers, lines = cells(table)
    words = " ".join([*headers, *(text for line in lines for text in line)])
    notes = " ".join(note for word, note in _NOTES.items() if word in words)
    return section("Scores", shown if any(row.last for row in table) else "",
                   tabled(headers, lines, texts=3, score="test"), f'<p class="note">{notes}</p>')


def _training(table: Sequence[Row]) -> str:
    if not any(row.last for row in table):
        return section("Training", "<p>No epoch is scored yet.</p>")
    return section("Training", picture(
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
    return section("What the search found", *parts) if parts else ""


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
    caption = (f"{of}{counted(len(recorded.names), 'searched term')}, {len(recorded.raw):,} recorded steps, "
               f"normalised by {recorded.normaliser}. Areas lie on top of each other; an area's height is a term's "
               f"weight.")
    if threshold is not None:
        caption += f" Where it is faint, its raw weight is {threshold:g} or less: no replay computes it."
    return picture(lambda narrow: plots.process(recorded, threshold=threshold, narrow=narrow), caption)


def _foot() -> str:
    return (f"<footer>Written by limbeck {escape(__version__)}. "
            f"Everything is in this file: keep it, send it, print it.</footer>")
