"""What networks of dense tasks say of some test images: truth, teacher, student alone, distilled students."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from limbeck.config import DataSettings
from limbeck.data import Batches, Data, open_data
from limbeck.errors import Mistake
from limbeck.evaluation.scores import resting
from limbeck.jobs.finished import Finished
from limbeck.members import Network
from limbeck.report.grouping import Row
from limbeck.runs import Run
from limbeck.tasks import Task
from limbeck.tasks.segmentation import Segmentation

IMAGES = 4
_PIXELS = 256  # of the longer side of what is shown
_BLACK = {"segmentation": "Black in the truth: pixels that do not count.", "depth": "Black in the truth: no reading."}


@dataclass(frozen=True)
class Column:
    """What one network says of the images, or the images themselves, or the truth.

    Attributes:
        who: Its heading.
        network: The network's name; empty where there is none.
        pictures: uint8 (N, H, W, 3).
    """

    who: str
    network: str
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class Predictions:
    """Some test images, and what everyone says of them.

    Attributes:
        columns: Images, truth, teachers, students alone, distilled students.
        task: Whose predictions these are.
        classes: Which classes occur in truth or predictions; of segmentation.
        data: The data set's name.
    """

    columns: tuple[Column, ...]
    task: Task
    classes: tuple[int, ...]
    data: str

    @property
    def caption(self) -> str:
        """What is shown, in words."""
        taught = [column for column in self.columns if column.network]
        of = {kind: dict.fromkeys(column.network for column in taught if (column.who == "teacher") == teacher)
              for kind, teacher in (("Teacher", True), ("Students", False))}
        people = " ".join(f"{kind}: {', '.join(names)}." for kind, names in of.items() if names)
        return f"Test images of {self.data}. {people} {_BLACK[self.task.name]}"


def taught_or_alone(table: Sequence[Row]) -> list[Row]:
    """The rows without those who teach others of them: these are shown as teachers."""
    runs = [run for row in table for run in row.outcomes]
    teachers = {Path(run.job.teacher.name).resolve() for run in runs if run.job.teacher}
    return [row for row in table if not any(run.folder.resolve() in teachers for run in row.outcomes)]


def predicted(runs: Mapping[str, Path], *, count: int = IMAGES, device: str | None = None) -> Predictions:
    """Ask the networks of finished runs, and whoever taught them, about some test images, evenly chosen.

    Networks answer in float32. A run is called `student alone` where it was trained by labels only.

    Args:
        runs: Name -> folder, in the order of the columns; students alone come first.
        count: Images, at most.
        device: What networks run on; None takes the best.

    Raises:
        Mistake: If a run is not finished or of another task, or the runs have other test images.
    """
    opened = _opened(runs, device)
    first = next(iter(opened.values()))
    rows = torch.linspace(0, len(first.data.test) - 1, min(count, len(first.data.test))).round().long()
    images, truth = _chosen(first, rows)
    said, size = list[tuple[str, str, Tensor]](), (truth.shape[1], truth.shape[2])

    def ask(run: Finished, network: Network, who: str) -> None:
        own, targets = _chosen(run, rows)
        if targets.shape != truth.shape or not torch.equal(targets, truth):
            raise Mistake(f"predictions stand beside one truth; {run.folder} is scored on other images or maps than "
                          f"{first.folder}. Give runs on the same data, at one size.")
        with torch.no_grad(), resting(network):
            said.append((who, network.name, run.data.task.predict(network.logits(own), size)))

    teachers = {run.job.teacher.model_dump_json(): run for run in opened.values() if run.job.teacher}
    for run in teachers.values():
        ask(run, run.teacher(), "teacher")
    for name, run in opened.items():
        ask(run, run.network, name)
    small = _small(images)
    columns = [Column(who, network, _pictures(first.data.task.draw(small, maps)))
               for who, network, maps in [("truth", "", truth), *said]]
    photographs = Column("image", "", _pictures((small * 255).round().to(torch.uint8)))
    return Predictions((photographs, *columns), first.data.task, _occurring(first.data.task, truth, said),
                       first.data.name.rstrip("/").rpartition("/")[2])


def _opened(runs: Mapping[str, Path], device: str | None) -> dict[str, Finished]:
    """The runs by what they are called here, students alone first."""
    data, found = dict[DataSettings, Data](), dict[str, Finished]()
    for name, folder in runs.items():
        settings = Run(folder).job().data.model_copy(update={"in_memory": False})  # a few images of it are wanted
        if settings not in data:
            data[settings] = open_data(settings)
        run = Finished.reopen(folder, device=device, data=data[settings])
        if run.data.task.name not in _BLACK:
            raise Mistake(f"a picture of predictions shows maps; {folder} is a run of {run.data.task.name}. Give runs "
                          f"of segmentation or depth.")
        found[name] = run
    alone = {f"student alone{name.removeprefix('none')}": run for name, run in found.items() if _untaught(run)}
    return alone | {name: run for name, run in found.items() if not _untaught(run)}


def _untaught(run: Finished) -> bool:
    return run.job.teacher is None and run.job.method.name == "none"


def _chosen(run: Finished, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Test images as the run's network gets them, and their maps."""
    batches = Batches(run.data.test.subset(rows), len(rows), train=False, device=run.device, workers=0)
    batch = next(batches.epoch())
    assert batch.targets is not None
    return batch.images, batch.targets


def _small(images: Tensor) -> Tensor:
    """Of photographs their three colours, no larger than is shown."""
    factor = min(1.0, _PIXELS / max(images.shape[2:]))
    height, width = (max(1, round(side * factor)) for side in images.shape[2:])
    return F.interpolate(images[:, :3].float(), (height, width), mode="area").clamp(0, 1)


def _pictures(drawn: Tensor) -> NDArray[np.uint8]:
    shown: NDArray[np.uint8] = drawn.permute(0, 2, 3, 1).cpu().numpy()
    return shown


def _occurring(task: Task, truth: Tensor, said: Sequence[tuple[str, str, Tensor]]) -> tuple[int, ...]:
    if not isinstance(task, Segmentation):
        return ()
    own = {int(label) for maps in (truth, *(maps for _, _, maps in said)) for label in maps.unique()}
    return tuple(sorted(own - {task.ignore}))
