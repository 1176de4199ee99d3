"""The verb: everything refused that can be before data is read, files written and checked, costs measured, all told."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data import Batches, Split
from limbeck.errors import Mistake
from limbeck.evaluation.cost import multiply_adds
from limbeck.evaluation.scores import score_answers
from limbeck.export.checking import BATCHES, TOLERANCE, largest_difference
from limbeck.export.formats import FORMATS, Answer, Format, formats, onnx_session, said
from limbeck.export.latency import latencies
from limbeck.export.quantised import quantised
from limbeck.export.shipment import Answering, Shipment, described, first_line
from limbeck.export.told import Row, as_text
from limbeck.files import unwritable, write_whole, written_beside
from limbeck.jobs.finished import Finished
from limbeck.members import Network
from limbeck.runs import Run, about
from limbeck.sources import open_network

NAME, INT8 = "student", ".int8.onnx"
CALIBRATION = 128  # training images that show the range of every activation


def export(folder: Path, to: str = ",".join(FORMATS), *, out: Path | None = None, int8: bool = False) -> str:
    """Write what a run ships, check every file, and say what it costs.

    Args:
        folder: Of a finished run; `export.json` there takes all that is told.
        to: Formats, by commas.
        out: Folder of the files; None is `export` in the run's own.
        int8: Write a quantised ONNX file as well, and score it beside the float one.

    Returns:
        The table.

    Raises:
        Mistake: If a file cannot be written or does not answer as the network does; it is then not there.
    """
    run, out = Run(folder), out or folder / "export"
    chosen = _checked(run, to, out, int8)
    _claim(run, out, [*(one.suffix for one in chosen), *[INT8] * int8])
    finished = Finished.reopen(folder, device="cpu")
    work = _Work(finished, out)
    for one in chosen:
        work.write(one)
    if int8:
        work.write_int8()
    rows = work.rows()
    run.write_json("export.json", {
        **about(), "folder": str(out), "threads": torch.get_num_threads(), "latency_batch": 1,
        "checked_batches": list(BATCHES), "tolerance": TOLERANCE, "score": finished.task.score,
        "student": dict(work.shipment.about), "rows": [row.as_json() for row in rows]})
    return as_text(rows, finished.task.score, torch.get_num_threads(), work.notes, out)


def _checked(run: Run, to: str, out: Path, int8: bool) -> list[Format]:
    """The formats, or all that is wrong at once."""
    wrong: list[str] = []
    chosen: list[Format] = []

    def attempt(look: Callable[[], object]) -> None:
        try:
            look()
        except Mistake as mistake:
            wrong.append(str(mistake))

    attempt(lambda: chosen.extend(formats(to)))
    for one in chosen:
        attempt(one.check)
    if int8 and chosen and FORMATS["onnx"] not in chosen:
        wrong.append(f"--int8 quantises the ONNX file; got --to {to}. Add onnx to --to, or leave --int8 out.")
    attempt(run.job)
    if not wrong and not run.finished:
        wrong.append(f"{run.folder} is not finished, and ships nothing yet. `limbeck resume {run.folder}` goes on with "
                     f"it.")
    attempt(lambda: _writable(out))
    if wrong:
        raise Mistake("\n".join(wrong))
    return chosen


def _writable(out: Path) -> None:
    place = out
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise unwritable(out, NotADirectoryError(20, f"{place} is no folder"))
    if not os.access(place, os.W_OK | os.X_OK):
        raise unwritable(out, PermissionError(13, f"no permission to write in {place}"))


def _claim(run: Run, out: Path, suffixes: list[str]) -> None:
    """Files of this very network are written anew; those of another one, or of nobody knows whom, stay."""
    before = said(out / f"{NAME}.json").get("fingerprint")
    own = run.read_json(run.network.name).get("fingerprint")
    there = [f"{NAME}{suffix}" for suffix in suffixes if (out / f"{NAME}{suffix}").exists()]
    if before != own and (there or before is not None):
        raise Mistake(f"{out} holds {', '.join(there) or f'{NAME}.json'} of another network than the one that "
                      f"{run.folder} ships, or of one that is not known. Give another folder with --out, or move them "
                      f"away.")


class _Work:
    """Files written one after the other, and what is known of them.

    Args:
        finished: The run.
        out: Where files go.
    """

    def __init__(self, finished: Finished, out: Path):
        self.finished, self.out = finished, out
        self.notes: list[str] = []
        self.images = next(_some(finished.data.test, max(BATCHES)))
        network, (_, *shape) = finished.network.eval(), self.images.shape
        self.shipment = Shipment(network, shape, described(network, shape, finished.task.name, finished.data.classes))
        self.answers: dict[str, Answer] = {}
        self.made: list[Row] = []

    def write(self, one: Format) -> None:
        """One format's file."""
        try:
            content = one.content(self.shipment)
        except Mistake:
            raise
        except Exception as error:  # each format's library raises its own
            raise Mistake(f"{self.shipment.network.name} cannot be written as {one.name}: {first_line(error)} "
                          f"Choose another format with --to.") from error
        self._keep(one.suffix, one.runs_in, content, lambda path: one.opened(path, self.shipment), TOLERANCE)

    def write_int8(self) -> None:
        """The ONNX file again, in 8-bit integers, and the scores of both."""
        plain = self.out / f"{NAME}{FORMATS['onnx'].suffix}"
        try:
            content = quantised(plain.read_bytes(), _some(self.finished.data.train, CALIBRATION))
        except Exception as error:  # onnxruntime raises whatever it meets
            raise Mistake(f"{self.shipment.network.name} cannot be quantised: {first_line(error)} Leave --int8 out; "
                          f"the other files are in {self.out}.") from error
        self._keep(INT8, FORMATS["onnx"].runs_in, content, onnx_session, math.inf)
        task = self.finished.task
        for row in self.made:
            if row.what.endswith(FORMATS["onnx"].suffix):
                row.score = score_answers(self.answers[row.what], self.finished.test(), task)[task.score]

    def _keep(self, suffix: str, runs_in: str, content: bytes, opened: Callable[[Path], Answer],
              tolerance: float) -> None:
        path = self.out / f"{NAME}{suffix}"
        with written_beside(path, content) as beside:
            answer = opened(beside)
            difference = largest_difference(answer, self.shipment.network, self.images, path.name, tolerance)
        write_whole(self.out / f"{NAME}.json", json.dumps(self.shipment.about, indent=2) + "\n")
        self.answers[path.name] = answer
        self.made.append(Row(path.name, runs_in, len(content), difference=difference))

    def rows(self) -> list[Row]:
        """Teacher, student and files, with what they cost."""
        networks = {NAME: self.shipment.network}
        if (teacher := self.finished.job.teacher) is not None:
            try:  # whatever classes it knows: only its cost is asked for
                networks = {"teacher": open_network(teacher, self.finished.data, finished=True, features=True).eval(),
                            **networks}
            except Mistake as mistake:
                self.notes.append(f"the teacher is not in the table: {mistake}")
        rows = [self._network(*named) for named in networks.items()] + self.made
        for name, milliseconds in latencies(self.answers, self.images[:1]).items():
            next(row for row in rows if row.what == name).latency = milliseconds
        return rows

    def _network(self, role: str, network: Network) -> Row:
        answering, image = Answering(network), self.images[:1]
        self.answers[role] = answering
        weights = sum(x.nbytes for x in network.module.state_dict().values())
        return Row(role, "PyTorch", weights, network.name, sum(p.numel() for p in network.module.parameters()),
                   multiply_adds(lambda: answering(image)))


def _some(split: Split, count: int) -> Iterator[Tensor]:
    """So many images of a split, evenly spaced, in batches of the largest size that is checked; repeated if fewer."""
    rows = torch.linspace(0, len(split) - 1, count).long()
    batches = Batches(split.subset(rows), max(BATCHES), train=False, device=torch.device("cpu"))
    return (batch.images for batch in batches.epoch(0))
