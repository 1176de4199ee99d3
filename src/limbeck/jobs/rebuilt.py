"""A finished run's method built again with all that learned in it, of which the run's folder ships one network only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from limbeck import jobs
from limbeck.config import CacheSettings, Job
from limbeck.data import Batches, Data, open_data
from limbeck.errors import Mistake
from limbeck.evaluation.cost import Cost, costs
from limbeck.evaluation.scores import Scores, score_group
from limbeck.jobs.parts import Parts
from limbeck.method import Method, Stage
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.seen import Batch, Clock
from limbeck.training import checkpoints, engine


@dataclass(frozen=True)
class Rebuilt:
    """A finished run's parts and stages.

    Attributes:
        folder: Of the run.
        parts: What it was assembled from.
        stages: What it trained, one after the other, on the device.
    """

    folder: Path
    parts: Parts
    stages: Sequence[Stage]

    @classmethod
    def of(cls, folder: Path, *, device: str | None = None, trained: bool = True) -> Rebuilt:
        """Build a run's method again, from its settings and its checkpoint; frozen networks compute, cache or no cache.

        Args:
            folder: Of the run.
            device: `cpu`, `cuda`, `mps`; None takes the best.
            trained: With everyone as they were at the end; False leaves them untrained, and needs no checkpoint.

        Raises:
            Mistake: If the run is not finished, or its checkpoint, its data or its teacher is not there any more.
        """
        run = Run(folder)
        job = run.job()
        if not run.finished:
            raise Mistake(f"{folder} is not finished: it holds no result yet. `limbeck resume {folder}` goes on with "
                          f"it.")
        verb = run.read_json("result.json")["verb"]
        found = jobs.found_process(verb, job, folder, device=device, quiet=True)
        uncached = job.model_copy(update={"cache": CacheSettings()})
        parts = Parts(verb, uncached, engine.start(device), Display(quiet=True))
        stages = jobs.staged(parts, found)
        layout = torch.channels_last if job.training.channels_last else torch.preserve_format
        for method in (stage.method for stage in stages):
            method.to(parts.accelerator.device).to(memory_format=layout)
            if method.companion is not None:
                method.companion.to(parts.accelerator.device)
        if trained:
            _load(run, stages)
        return cls(folder, parts, stages)

    @property
    def job(self) -> Job:
        return self.parts.job

    @property
    def method(self) -> Method:
        """The last stage's."""
        return self.stages[-1].method

    def scores(self, source: str | None = None) -> dict[str, Scores]:
        """Of everyone who answers and of the group, on the test split of the run's data or of other data."""
        return score_group(self.method, self.test(source), self.parts.task, self._autocast())

    def costs(self, *, rounds: int = 7) -> dict[str, list[Cost]]:
        """Of every part, stage by stage, at the run's batch size and precision."""
        return {stage.name: costs(stage.method, self.batch(stage.method), self.epochs(stage), autocast=self._autocast(),
                                  rounds=rounds) for stage in self.stages}

    def _autocast(self) -> Callable[[], AbstractContextManager]:
        return engine.autocast(self.job.training.precision, self.parts.accelerator.device)[0]

    def epochs(self, stage: Stage) -> list[Clock]:
        """The clock at the beginning of every epoch of a stage."""
        per_epoch = len(self.parts.batches("train", train=True))
        length = jobs.search_epochs(self.job) if self.parts.verb == "search" else self.job.training.epochs
        steps = max(1, round(stage.length * length * per_epoch))
        return [Clock(first, steps, per_epoch) for first in range(0, steps, per_epoch)]

    def batch(self, method: Method) -> Batch:
        """A batch as training has it, with the views that a method asks for."""
        views = [self.parts.view(kind) for kind in method.views]
        return next(self.parts.batches("train", train=True, views=views).epoch(0))

    def test(self, source: str | None = None) -> Batches:
        """The test split, plain: of the run's own data, or of other data of the same classes."""
        data = self.parts.data if source is None else _other(self.job, source, self.parts.data)
        split = self.parts.splits["test"] if source is None else data.test
        return Batches(split, data.at_once, train=False, device=self.parts.accelerator.device,
                       workers=self.job.data.workers)


def _load(run: Run, stages: Sequence[Stage]) -> None:
    if not run.checkpoint.is_file():
        raise Mistake(f"{run.folder} ships its network alone, and everyone else who learned is in its checkpoint, "
                      f"which is not there. Restore {run.checkpoint}, or train again.")
    state = checkpoints.load_shared(run.checkpoint)
    for earlier, own in zip(stages, state["earlier"], strict=False):
        earlier.method.load_state_dict(own)
    stages[-1].method.load_state_dict(state["method"])


def _other(job: Job, source: str, own: Data) -> Data:
    data = open_data(job.data.model_copy(update={"source": source}))
    if data.classes != own.classes:
        raise Mistake(f"{source} has other classes than the run's data ({len(data.classes)} and {len(own.classes)}, or "
                      f"others by name or order). Give data with the same classes.")
    return data
