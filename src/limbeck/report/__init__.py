"""What came of runs: tables over them, pictures of them, and one page with everything.

    table = rows(folders)
    print(as_markdown(table))
    plots.curves(table).savefig("curves.png")  # from limbeck.report import plots: it imports matplotlib
    write_page(folders, Path("report.html"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limbeck.report.grouping import against
from limbeck.report.lengths import sooner
from limbeck.report.members import with_members
from limbeck.report.outcome import Outcome, read_all
from limbeck.report.tables import FORMS, OF_CELLS, Row, Score, as_csv, as_latex, as_markdown, as_rich, as_text, rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["FORMS", "OF_CELLS", "Outcome", "Row", "Score", "against", "as_csv", "as_latex", "as_markdown", "as_rich",
           "as_text", "read_all", "rows", "sooner", "with_members", "write_page"]


def write_page(folders: Iterable[Path], out: Path, *, title: str = "Distillation report") -> Path:
    """See `page.write_page`, which this imports when it is called: it draws, and needs matplotlib."""
    from limbeck.report import page

    return page.write_page(folders, out, title=title)
