"""The command line. Nothing heavy is imported until a verb needs it, so that `limbeck --help` answers at once."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from limbeck.config import Job

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Distil big vision networks into small ones.")

Data = Annotated[str | None, typer.Option(help="digits, a folder of images by class, hf:NAME or "
                                               "hf:FOLDER, packed:FOLDER, cifar10:FOLDER, cifar100:FOLDER")]
Folder = Annotated[Path, typer.Option("--run", help="folder that the run fills; the same command goes on with it")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings, a recipe for instance; flags go on top")]
Pair = Annotated[str | None, typer.Option(help="which of a recipe's pairs of networks")]
Student = Annotated[str | None, typer.Option(help="the network to train: NAME, timm:NAME, torchvision:NAME, "
                                                  "hf:REPO, py:module:factory or a run's folder")]
Teacher = Annotated[str | None, typer.Option(help="the network that teaches: a run's folder, or NAME@CHECKPOINT")]
MethodName = Annotated[str | None, typer.Option("--method", help="see `limbeck list methods`; NAME+NAME blends")]
Epochs = Annotated[float | None, typer.Option(help="passes over the training data")]
BatchSize = Annotated[int | None, typer.Option(help="images in a step, over all processes together")]
Rate = Annotated[float | None, typer.Option("--lr", help="initial learning rate")]
Seed = Annotated[int | None, typer.Option(help="of weights, order, augmentation")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="any other setting, as section.key=value; repeatable")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best there is by default")]
Precision = Annotated[str | None, typer.Option(help="auto, bf16 or float32")]
Cached = Annotated[Path | None, typer.Option("--cache", help="folder of the teacher's outputs: read what is there, "
                                                              "store what is not; see `limbeck cache`")]
Profiled = Annotated[bool, typer.Option("--profile", help="tell where the time of the first steps goes")]
Quiet = Annotated[bool, typer.Option("--quiet", help="show nothing but errors")]


Catalogue = Enum("Catalogue", {"methods": "methods", "networks": "networks", "data": "data", "recipes": "recipes"})
Form = Enum("Form", {"text": "text", "markdown": "markdown", "latex": "latex", "csv": "csv"})
Picture = Enum("Picture", {"curves": "curves", "scores": "scores", "losses": "losses", "rates": "rates",
                           "process": "process", "students": "students", "lengths": "lengths", "features": "features",
                           "correlations": "correlations", "attention": "attention", "predictions": "predictions"})


@app.command()
def train(run: Folder, data: Data = None, network: Student = None, epochs: Epochs = None, batch_size: BatchSize = None,
          lr: Rate = None, seed: Seed = None, config: Config = None, pair: Pair = None, set_: Sets = None,
          device: Device = None, precision: Precision = None, profile: Profiled = False,
          quiet: Quiet = False) -> None:
    """Train one network on the labels: a teacher, or a student alone."""
    _execute("train", run, config, pair, set_, device, quiet, profile, {
        "data": data, "student": network, "method": "none", "training.epochs": epochs,
        "training.batch_size": batch_size, "optimizer.lr": lr, "seed": seed, "training.precision": precision})


@app.command()
def distill(run: Folder, data: Data = None, teacher: Teacher = None, student: Student = None,
            method: MethodName = None,
            process: Annotated[str | None, typer.Option(help="a process file or search run to replay")] = None,
            cache: Cached = None, epochs: Epochs = None, batch_size: BatchSize = None, lr: Rate = None,
            seed: Seed = None, config: Config = None, pair: Pair = None, set_: Sets = None, device: Device = None,
            precision: Precision = None, profile: Profiled = False, quiet: Quiet = False) -> None:
    """Train a student from a teacher. With --method distpro and no process, search one first."""
    _execute("distill", run, config, pair, set_, device, quiet, profile, {
        "data": data, "teacher": teacher, "student": student, "method": method, "process.file": process,
        "cache.folder": _text(cache), "training.epochs": epochs, "training.batch_size": batch_size, "optimizer.lr": lr,
        "seed": seed, "training.precision": precision})


@app.command()
def search(run: Folder, data: Data = None, teacher: Teacher = None, student: Student = None, method: MethodName = None,
           cache: Cached = None, epochs: Annotated[float | None, typer.Option(help="length of the search")] = None,
           batch_size: BatchSize = None, lr: Rate = None, seed: Seed = None, config: Config = None, pair: Pair = None,
           set_: Sets = None, device: Device = None, precision: Precision = None,
           profile: Profiled = False, quiet: Quiet = False) -> None:
    """Learn, on held-out training data, how much each of a method's terms should weigh at every moment."""
    _execute("search", run, config, pair, set_, device, quiet, profile, {
        "data": data, "teacher": teacher, "student": student, "method": method, "cache.folder": _text(cache),
        "search.epochs": epochs, "training.batch_size": batch_size, "optimizer.lr": lr, "seed": seed,
        "training.precision": precision})


@app.command("cache")
def cache_(cache: Annotated[Path, typer.Option("--cache", help="folder that takes the teacher's outputs; the same "
                                                               "command goes on with it")],
           data: Data = None, teacher: Teacher = None, student: Student = None, method: MethodName = None,
           batch_size: BatchSize = None, seed: Seed = None, config: Config = None, pair: Pair = None,
           set_: Sets = None, device: Device = None, precision: Precision = None, quiet: Quiet = False) -> None:
    """Store all that the teacher will be asked for ahead of `distill --cache`, and say what that saves."""
    from limbeck.config import assignments, read_job

    job: Job = read_job(config, {
        "data": data, "teacher": teacher, "student": student, "method": method, "cache.folder": str(cache),
        "training.batch_size": batch_size, "seed": seed, "training.precision": precision, **assignments(set_ or [])},
        pair)
    from limbeck.jobs import precompute

    for line in precompute.fill_ahead(job, device=device, quiet=quiet):
        typer.echo(line)


@app.command()
def resume(run: Annotated[Path, typer.Argument(help="the run's folder")], device: Device = None,
           quiet: Quiet = False) -> None:
    """Go on with a stopped run as if it had never stopped."""
    from limbeck import jobs

    jobs.resume(run, device=device, quiet=quiet)


@app.command()
def evaluate(run: Annotated[Path, typer.Argument(help="a finished run's folder")], data: Data = None,
             members: Annotated[bool, typer.Option("--members", help="everyone in a group, ensemble, fusion, and how "
                                                                     "alike they are")] = False,
             cost: Annotated[bool, typer.Option("--cost", help="parameters, multiply-adds and time of every part "
                                                               "of the method instead")] = False,
             json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
             device: Device = None) -> None:
    """Score a run's network on its test data, or on other data with the same classes."""
    from limbeck.report import measured

    look = measured.cost if cost else measured.members if members else measured.network
    typer.echo(look(run, source=data, device=device, json=json))


@app.command()
def export(run: Annotated[Path, typer.Argument(help="a finished run's folder")],
           to: Annotated[str, typer.Option(help="formats, by commas")] = "safetensors,onnx,pt2",
           out: Annotated[Path | None, typer.Option(help="takes the files; RUN/export by default")] = None,
           int8: Annotated[bool, typer.Option("--int8", help="an ONNX file in 8-bit integers as well; scores both")
                           ] = False) -> None:
    """Write the student alone, check every file on real images, and say size, multiply-adds and CPU latency."""
    from limbeck.export import export

    typer.echo(export(run, to, out=out, int8=int8))


@app.command()
def table(runs: Annotated[list[Path], typer.Argument(help="folders of runs, or a sweep's")],
          form: Annotated[Form, typer.Option("--format")] = Form.text,
          against: Annotated[str | None, typer.Option(help="a method, to test the others against (Welch)")] = None,
          members: Annotated[bool, typer.Option("--members", help="of groups also mean of members, ensemble, fusion, "
                                                                  "leader, any right")] = False,
          sooner: Annotated[str | None, typer.Option(help="a method trained for several lengths: how many epochs it "
                                                          "needs for what the others reach")] = None) -> None:
    """Compare runs: mean and deviation over seeds, beside the paper's number where a recipe has one."""
    from limbeck import report
    from limbeck.runs import runs_in

    found = report.rows(run for folder in runs for run in runs_in(folder) or [folder])
    if sooner is not None:
        typer.echo(report.OF_CELLS[form.value](*report.sooner(found, sooner)))
        return
    found = report.with_members(found) if members else found
    typer.echo(report.FORMS[form.value](report.against(found, against) if against else found))


@app.command()
def sweep(files: Annotated[list[Path], typer.Argument(help="a bench, or recipes: YAML")],
          folder: Annotated[Path | None, typer.Option(help="takes the runs, in place of the bench's")] = None,
          seed: Annotated[list[int] | None, typer.Option(help="in place of the bench's; repeatable")] = None,
          jobs: Annotated[int | None, typer.Option(min=1, help="runs at once; one for each GPU by default")] = None,
          set_: Sets = None, device: Device = None,
          dry: Annotated[bool, typer.Option("--dry-run", help="check everything and list the runs, do none")] = False,
          quiet: Quiet = False) -> None:
    """Do methods x pairs x seeds; stopped and given again, it goes on, and skips what is finished."""
    from limbeck.config import assignments
    from limbeck.progress import Display
    from limbeck.sweeps.plan import plan
    from limbeck.sweeps.workers import Workers

    made = plan(files, folder=folder, seeds=seed or [], over=assignments(set_ or []))
    if dry:
        typer.echo(made)
        return
    Workers(made, count=jobs, device=device, display=Display(quiet=quiet)).run()
    typer.echo(f"all {len(made.pieces)} runs are finished; compare them with: limbeck table {made.folder}")


@app.command("report")
def report_(runs: Annotated[list[Path], typer.Argument(help="folders of runs")],
            out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html")) -> None:
    """Write one HTML page: table, curves, searched processes, settings."""
    from limbeck import report

    typer.echo(f"wrote {report.write_page(runs, out)}")


@app.command()
def plot(what: Annotated[Picture, typer.Argument(help="what to draw")],
         runs: Annotated[list[Path], typer.Argument(help="folders of runs; a process may be its file")],
         out: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF; WHAT.png by default")] = None,
         images: Annotated[int | None, typer.Option(help="how many predictions (4) or attention (6) show")] = None,
         device: Device = None) -> None:
    """Draw curves or scores of runs, the losses or rates of one, or the process that a search found.

    Of runs of several lengths: lengths, scores against epochs. Of groups: students, their scores by how many learn
    together. Of finished runs also: features, how the network places its test images (t-SNE); correlations, how far its
    mean logits of each class are from its teacher's; attention, where everyone in one run looks; predictions of
    segmentation or depth, beside truth and teacher.
    """
    from limbeck.report import pictures

    file = pictures.draw(what.value, runs, out or Path(f"{what.value}.png"), device=device, images=images)
    typer.echo(f"wrote {file}")


@app.command()
def taps(network: Annotated[str, typer.Argument(help="NAME, timm:NAME, torchvision:NAME, hf:REPO, py:module:factory "
                                                     "or a run's folder")],
         teacher: Annotated[str | None, typer.Option(help="another network: which stages would pair")] = None,
         size: Annotated[int | None, typer.Option(help="side of the images, in pixels; 32, or the one that the network "
                                                       "insists on")] = None,
         everything: Annotated[bool, typer.Option("--all", help="list every layer with places, too")] = False) -> None:
    """List what can be tapped in a network, with shapes and strides; and how its stages pair with a teacher's."""
    from limbeck.guide.listing import taps_of

    typer.echo(taps_of(network, size, teacher, everything=everything))


@app.command()
def check(methods: Annotated[list[str], typer.Argument(help="file.py:function, or a method's name")],
          set_: Sets = None) -> None:
    """Hold a loss of your own, or any method, to the contract: on the CPU, a line each check, in half a minute."""
    from limbeck import contract

    contract.hold(methods, set_ or [], typer.echo)


@app.command("list")
def list_(what: Annotated[Catalogue, typer.Argument(help="what to list")]) -> None:
    """List methods, networks, kinds of data, or recipes."""
    from limbeck.guide import listing

    typer.echo(listing.of(what.value))


@app.command()
def cards(folder: Annotated[Path, typer.Argument(help="of the cards")] = Path("docs/methods")) -> None:
    """Write a card for each method, and their index: idea, loss, options, cost, source, what papers report."""
    from limbeck.guide import cards

    typer.echo(cards.write(folder))


@app.command()
def demo(run: Folder = Path("runs/demo"),
         quick: Annotated[bool, typer.Option("--quick", help="an epoch each, as a check")] = False,
         quiet: Quiet = False) -> None:
    """The main job on the built-in digits: teacher, KD, DistPro searched and replayed, a page; under three minutes."""
    from limbeck.guide.demonstration import demonstrate

    typer.echo(demonstrate(run, quick=quick, quiet=quiet))


def _execute(verb: Any, run: Path, config: Path | None, pair: str | None, sets: list[str] | None, device: str | None,
             quiet: bool, profile: bool, flags: dict[str, Any]) -> None:
    from limbeck.config import assignments, read_job

    job: Job = read_job(config, {**flags, **assignments(sets or [])}, pair)
    from limbeck import jobs

    jobs.execute(verb, job, run, device=device, quiet=quiet, profile=profile)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def main() -> None:
    """Run a verb; what a user can mend is told without a traceback, with exit code 2."""
    from limbeck.errors import Mistake, Stopped

    try:
        app()
    except Mistake as mistake:
        typer.echo(f"error: {mistake}", err=True)
        sys.exit(2)
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(130)

