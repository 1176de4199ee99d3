"""A finished run opened again: its network, its data, its teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from limbeck.config import Job
from limbeck.data import Batches, Data, open_data
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.runs import Run
from limbeck.sources import open_network
from limbeck.sources.known import known_classes
from limbeck.tasks import Task
from limbeck.tasks.agreement import Agreement
from limbeck.training import engine
from limbeck.training.teachers import first_choices


@dataclass(frozen=True)
class Finished:
    """What a run left behind.

    Attributes:
        folder: Of the run.
        job: Its settings.
        data: Its own data, or other data of the same classes.
        network: What it trained, on the device.
        device: Where things are computed.
    """

    folder: Path
    job: Job
    data: Data
    network: Network
    device: torch.device

    @classmethod
    def reopen(cls, folder: Path, *, source: str | None = None, device: str | None = None,
               data: Data | None = None) -> Finished:
        """Open a run.

        Args:
            folder: Of the run.
            source: Other data with the same classes; None opens the run's own.
            device: `cpu`, `cuda`, `mps`; None takes the best.
            data: What the source holds, where it is open already.

        Raises:
            Mistake: If the run is not finished, or the data does not fit it.
        """
        run = Run(folder)
        job = run.job()
        if not run.network.is_file():
            raise Mistake(f"{folder} is not finished: it holds no network yet. `limbeck resume {folder}` goes on with "
                          f"it.")
        place = engine.start(device).device
        if data is None:
            data = open_data(job.data if source is None else job.data.model_copy(update={"source": source}))
        if not data.classes:
            known = known_classes(job.student.model_copy(update={"name": str(folder)})) or ()
            data = replace(data, classes=tuple(names[0] for names in known))
        network = open_network(job.student.model_copy(update={"name": str(folder), "weights": None}), data,
                               finished=True)
        return cls(folder, job, data, network.to(place), place)

    def test(self) -> Batches:
        """The test split, plain; where it has no labels, the teacher's first choices are its targets."""
        batches = Batches(self.data.test, self.data.at_once, train=False, device=self.device,
                          workers=self.job.data.workers)
        if self.data.test.labelled:
            return batches
        return Batches(first_choices(self.teacher(), batches), self.data.at_once, train=False, device=self.device,
                       workers=self.job.data.workers)

    @property
    def task(self) -> Task:
        """How the test split is scored."""
        return self.data.task if self.data.test.labelled else Agreement()

    def teacher(self) -> Network:
        """The network that taught, on the device.

        Raises:
            Mistake: If nobody did.
        """
        if self.job.teacher is None:
            raise Mistake(f"a run with a teacher is needed; {self.folder} has none. Give a run of `limbeck distill` "
                          f"whose method has one.")
        return open_network(self.job.teacher, self.data, finished=True).to(self.device)
