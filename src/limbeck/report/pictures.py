"""Pictures by name, for the command line: what is drawn of which runs, and in which file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.errors import Mistake
from limbeck.jobs.finished import Finished
from limbeck.jobs.rebuilt import Rebuilt
from limbeck.members import Network
from limbeck.process.recorded import Recorded
from limbeck.report import attending, comparing, correlating, embedding, pathways, plots, predicting
from limbeck.report.answers import Answers, answers
from limbeck.report.fast import lengths
from limbeck.report.grouping import Row, names
from limbeck.report.outcome import read_all
from limbeck.report.students import students
from limbeck.report.tables import rows
from limbeck.runs import Run, runs_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")


def draw(what: str, runs: Sequence[Path], out: Path, *, device: str | None = None,
         images: int | None = None) -> Path:
    """Draw one picture into a file.

    Args:
        what: `curves` or `scores` of all runs; `students`: scores of groups by their number; `lengths`: scores by the
            length of training; `losses` or `rates` of one
            run; `process` of one search run or process file; `features` or `correlations` of finished runs, a panel
            each, from their networks and test data; `attention` of everyone in one finished run; `predictions` of
            segmentation or depth, of finished runs and their teachers beside the truth.
        runs: Folders of runs.
        out: PNG, SVG or PDF.
        device: What networks run on; None takes the best.
        images: How many `attention` and `predictions` show, at most; None leaves it to them.

    Raises:
        Mistake: If the file is of another kind, the picture shows no images, there are too many runs for it,
            or a run is not finished.
    """
    if out.suffix.lower() not in _FORMATS:
        raise Mistake(f"a picture is a file of {', '.join(_FORMATS)}; got {out}. Give --out with one of these endings.")
    if images is not None and (what not in ("attention", "predictions") or images < 1):
        raise Mistake(f"--images is how many images, 1 or more, a picture of attention or predictions shows; got "
                      f"{images} for {what}. Leave it out, or draw one of them.")
    figure = _figure(what, runs, device, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    return out


def _figure(what: str, runs: Sequence[Path], device: str | None, images: int | None) -> Figure:
    if what in ("curves", "scores", "lengths", "students"):  # of a sweep's folder too
        runs = [run for folder in runs for run in runs_in(folder) or [folder]]
    if what in ("curves", "scores"):
        return (plots.curves if what == "curves" else plots.scores)(rows(runs))
    if what == "lengths":
        return lengths(rows(runs))
    if what == "students":
        return students(rows(runs))
    if what in ("features", "correlations"):
        return _of_networks(what, runs, device)
    if what == "predictions":
        named = _titled(predicting.taught_or_alone(rows(runs)))
        return comparing.predictions(predicting.predicted(named, count=images or predicting.IMAGES, device=device),
                                     captioned=True)
    if len(runs) != 1:
        raise Mistake(f"a picture of {what} shows one run; got {len(runs)}. Give one folder.")
    if what == "process":
        return pathways.process(Recorded.load(Run(runs[0]).process if runs[0].is_dir() else runs[0]))
    if what == "attention":
        run = Rebuilt.of(runs[0], device=device)
        return attending.attention(attending.looks(run.method, run.test(), run.parts.data.classes,
                                               count=images or attending.ROWS))
    (one,) = read_all(runs)
    return plots.losses(one) if what == "losses" else plots.rates(one)


def _of_networks(what: str, runs: Sequence[Path], device: str | None) -> Figure:
    opened = {title: Finished.reopen(folder, device=device) for title, folder in _titled(rows(runs)).items()}

    def read(run: Finished, network: Network, tap: str) -> Answers:
        return answers(network, run.test(), run.data.classes, tap)

    if what == "features":
        return embedding.features({title: read(run, run.network, "pooled") for title, run in opened.items()})
    return correlating.correlations({title: (read(run, run.network, "logits"), read(run, run.teacher(), "logits"))
                                     for title, run in opened.items()})


def _titled(table: Sequence[Row]) -> dict[str, Path]:
    """A name for each run: its row's, with its seed, or else its folder, where only that tells it from another."""
    found: dict[str, Path] = {}
    for row, name in zip(table, names(table), strict=True):
        own = Counter(outcome.job.seed for outcome in row.outcomes)
        for outcome in row.outcomes:
            seed = outcome.job.seed
            apart = f", seed {seed}" if own[seed] == 1 else f", {outcome.folder}"
            found[name + apart * (len(row.outcomes) > 1)] = outcome.folder
    return found
