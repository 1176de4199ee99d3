"""Pictures by name, for the command line: what is drawn of which runs, and in which file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.errors import Mistake
from limbeck.recorded import Recorded
from limbeck.report import pathways, plots
from limbeck.report.outcome import read_all
from limbeck.report.tables import rows
from limbeck.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")


def draw(what: str, runs: Sequence[Path], out: Path) -> Path:
    """Draw one picture into a file.

    Args:
        what: `curves` of all runs; `losses` or `rates` of one; `process` of one search run or process file.
        runs: Folders of runs.
        out: PNG, SVG or PDF.

    Raises:
        Mistake: If the file is of another kind, or there are too many runs for the picture.
    """
    if out.suffix.lower() not in _FORMATS:
        raise Mistake(f"a picture is a file of {', '.join(_FORMATS)}; got {out}. Give --out with one of these endings.")
    figure = _figure(what, runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    return out


def _figure(what: str, runs: Sequence[Path]) -> Figure:
    if what == "curves":
        return plots.curves(rows(runs))
    if len(runs) != 1:
        raise Mistake(f"a picture of {what} shows one run; got {len(runs)}. Give one folder.")
    if what == "process":
        return pathways.process(Recorded.load(Run(runs[0]).process if runs[0].is_dir() else runs[0]))
    (one,) = read_all(runs)
    return plots.losses(one) if what == "losses" else plots.rates(one)
