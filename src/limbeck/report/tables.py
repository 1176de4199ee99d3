"""A table over runs, as text, Markdown, CSV and LaTeX: those that differ only in their seed share a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from limbeck.report.grouping import METRICS, Row, Score, rows, with_deviation
from limbeck.report.members import members_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["FORMS", "Row", "Score", "as_csv", "as_latex", "as_markdown", "as_rich", "as_text", "cells", "rows"]


def cells(table: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and texts; a column that no row fills is left out."""
    measures = {METRICS.get(row.metric, row.metric) for row in table}
    columns: dict[str, Callable[[Row], str]] = {
        "method": lambda row: row.what,
        "teacher → student": lambda row: row.pair,
        "data": lambda row: row.data,
        "epochs": _epochs,
        "seeds": _seeds,
        **({"measure": lambda row: METRICS.get(row.metric, row.metric)} if len(measures) > 1 else {}),
        "test" if len(measures) > 1 else f"test {measures.pop()}": lambda row: _text(row.last),
        **{name: partial(_member, name) for name in members_of(table)},
        "best by selection": lambda row: _text(row.best),
        "peak test": lambda row: _text(row.peak),
        "paper": lambda row: with_deviation(*row.paper) if row.paper else "",
        **{f"against {base}": lambda row: str(row.compared or "")
           for base in dict.fromkeys(row.compared.base for row in table if row.compared)},
    }
    filled = {header: [cell(row) for row in table] for header, cell in columns.items()}
    kept = {header: texts for header, texts in filled.items() if any(texts) or header.startswith("test")}
    return list(kept), [list(line) for line in zip(*kept.values(), strict=True)]


def as_rich(table: Sequence[Row]) -> Table:
    """For a terminal that rich prints to."""
    return _rich(*cells(table))


def _rich(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        made.add_column(Text(header), justify="right" if _numeric(header) else "left")
    for line in lines:
        made.add_row(*(Text(text) for text in line))
    return made


def as_text(table: Sequence[Row], *, width: int = 200) -> str:
    """Plain text, as wide as it must be and not wider than `width` characters."""
    return _as_text(*cells(table), width=width)


def _as_text(headers: Sequence[str], lines: Sequence[Sequence[str]], *, width: int = 200) -> str:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(_rich(headers, lines))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n") + "\n"


def as_markdown(table: Sequence[Row]) -> str:
    """A table that GitHub shows."""
    return _as_markdown(*cells(table))


def _as_markdown(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if _numeric(header) else "---" for header in headers]
    safe = [[text.replace("|", r"\|") for text in line] for line in [headers, rule, *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in safe)


def as_csv(table: Sequence[Row]) -> str:
    """Every number in full, means and deviations in columns of their own; the same columns always, then members'."""
    file, more = io.StringIO(), members_of(table)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "teacher", "student", "data", "epochs", "runs", "finished", "seeds", "metric",
                     "last_mean", "last_std", "best_mean", "best_std", "peak_mean", "peak_std", "paper", "paper_std",
                     "against", "difference", "p", "against_runs",
                     *(f"{name}_{part}" for name in more for part in ("mean", "std"))])
    for row in table:
        numbers = _numbers(row.last, row.best, row.peak)
        writer.writerow([row.what, row.teacher, row.student, row.data, row.epochs, len(row.counted), row.finished,
                         " ".join(map(str, row.seeds)), row.metric, *numbers, *(row.paper or (None, None)),
                         *((c.base, c.difference, c.p, c.counts[1]) if (c := row.compared) else [None] * 4),
                         *_numbers(*(row.members.get(name) for name in more))])
    return file.getvalue()


def as_latex(table: Sequence[Row]) -> str:
    """A `tabular` for a paper that loads booktabs."""
    return _as_latex(*cells(table))


def _as_latex(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    sides = "".join("r" if _numeric(header) else "l" for header in headers)
    body = [" & ".join(map(_latex, line)) + r" \\" for line in [headers, *lines]]
    return "\n".join([rf"\begin{{tabular}}{{{sides}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule",
                      r"\end{tabular}", ""])


FORMS: dict[str, Callable[[Sequence[Row]], str]] = {
    "text": as_text, "markdown": as_markdown, "csv": as_csv, "latex": as_latex}
"""Every form of a table, by name."""


def _as_csv(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([headers, *lines])
    return file.getvalue()


OF_CELLS: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], str]] = {
    "text": _as_text, "markdown": _as_markdown, "csv": _as_csv, "latex": _as_latex}
"""The same forms, of any headers and lines."""


def _text(score: Score | None) -> str:
    return "" if score is None else str(score)


def _numbers(*scores: Score | None) -> list[float | None]:
    """Mean and deviation of each."""
    return [x for score in scores for x in ((score.mean, score.deviation) if score else (None, None))]


def _member(name: str, row: Row) -> str:
    return _text(row.members.get(name))


def _epochs(row: Row) -> str:
    return f"{row.epochs:.4g}" if row.finished else f"{max(o.done for o in row.outcomes):.4g} of {row.epochs:.4g}"


def _seeds(row: Row) -> str:
    """How many; with how many runs where some have the same, or are not finished."""
    many = str(len(row.seeds)) if len(row.seeds) == len(row.counted) else f"{len(row.seeds)} in {len(row.counted)} runs"
    return many if len(row.counted) == len(row.outcomes) else f"{many} of {len(row.outcomes)}"


def _numeric(header: str) -> bool:
    return header not in ("method", "teacher → student", "data", "measure")


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "→": r"$\to$",
          "↓": r"$\downarrow$", "±": r"$\pm$", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
