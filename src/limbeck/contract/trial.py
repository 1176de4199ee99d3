"""Tiny networks, random images, and the loop around them: where any method is tried out within seconds."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from limbeck import ranks
from limbeck.config import MethodSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.contract.nets import CLASSES, NETS, OF_MAPS, SCENE, SIZE
from limbeck.data import Augmentation, Batches, Split, Views
from limbeck.data.images import Images
from limbeck.members import Network, Statistics
from limbeck.method import Method, Setting, Stage
from limbeck.process import Learned
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.search import Search
from limbeck.seen import Batch
from limbeck.tasks import Task
from limbeck.tasks.classification import Classification
from limbeck.tasks.depth import Depth
from limbeck.tasks.segmentation import Segmentation
from limbeck.training import engine
from limbeck.training.trainer import Trainer
from limbeck.wiring import build_stages, needs_teacher

Kind = Literal["classification", "segmentation", "depth"]
TASKS: dict[Kind, Task] = {"classification": Classification(), "segmentation": Segmentation(CLASSES), "depth": Depth()}


@dataclass(frozen=True)
class Trial:
    """A method on tiny networks.

    Attributes:
        method: Its name.
        options: Its options, in place of the defaults.
        pulls: Term prefix -> members that it sends gradients to; empty where that is not known.
        stage: Which of its stages, for a method that trains several.
        networks: Kinds of student and teacher, of `NETS`.
        further: Networks beside these, by the method's name for them; widths of tiny CNNs.
        lr: Rate with which its loss is to fall.
        teacher_width: The teacher's, where it matters; the student's is 8.
        companion: Whether it brings a companion; then there is no search.
        turns: Whether it takes several turns in a step; nor is there then.
        deployed: The member that ships.
        task: What its networks answer; on maps these are networks of their own, and `networks` plays no part.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    pulls: dict[str, frozenset[str]] = field(default_factory=dict)
    stage: int = 0
    networks: tuple[str, str] = ("cnn", "cnn")
    further: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lr: float = 0.02
    teacher_width: int = 12
    companion: bool = False
    turns: bool = False
    deployed: str = "student"
    task: Kind = "classification"

    @property
    def supervised(self) -> bool:
        """Whether what ships has a supervised term: stages that only prepare the student have none."""
        own = () if self.deployed == "student" else (f"{self.deployed}/", f"{self.deployed}/ce")
        return any(prefix in self.pulls for prefix in ("ce", *own))

    @property
    def searchable(self) -> bool:
        """Whether there are weights to be searched, a loss to search them by, and nothing in the way."""
        return self.supervised and len(self.pulls) > 1 and not self.companion and not self.turns

    def pulled(self, term: str) -> frozenset[str] | None:
        """Members that a term sends gradients to; None if no prefix matches."""
        return next((who for prefix, who in self.pulls.items() if term.startswith(prefix)), None)

    @property
    def label(self) -> str:
        more = [f"{k}={v}" for k, v in (self.options | self.further).items()]
        more += [f"stage{self.stage}"] * bool(self.stage) + [self.task] * (self.task != "classification")
        return "-".join([self.method, *more, *["to".join(reversed(self.networks))] * (self.networks != ("cnn", "cnn"))])


def tiny(width: int = 8, *, seed: int = 0, kind: str = "cnn", **options: Any) -> Network:
    """An untrained tiny network, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETS[kind](width, **options)
    return Network(module, name=f"tiny{width}", size=SCENE if kind in OF_MAPS.values() else SIZE,
                   statistics=Statistics((0.5,) * 3, (0.25,) * 3), factory=lambda: NETS[kind](width, **options))


def batch(count: int = 8, *, seed: int = 0, views: int = 0, task: Kind = "classification") -> Batch:
    """Random images with targets of a task, and so many further views of them."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZE if task == "classification" else SCENE
    return Batch(torch.rand(count, *size, generator=generator), _targets(count, task, generator),
                 torch.arange(count), tuple(torch.rand(count, *size, generator=generator) for _ in range(views)))


def _targets(count: int, task: Kind, generator: torch.Generator) -> Tensor:
    """Classes (N,), or label maps or depths (N, H, W) of which a part does not count."""
    if task == "classification":
        return torch.randint(CLASSES, (count,), generator=generator)
    values = CLASSES * torch.rand(count, *SCENE[1:], generator=generator)
    counts = torch.rand(values.shape, generator=generator) > 0.2
    return values.where(counts, 0.0) if task == "depth" else values.long().where(counts, 255)


def task_of(method: Method) -> Kind:
    """What the member that ships answers, by the shape of its logits."""
    shape = method.student().shape("logits")
    return "classification" if len(shape) == 1 else "depth" if shape[0] == 1 else "segmentation"


def built(trial: Trial, **options: Any) -> Method:
    """The trial's method on tiny networks, in train mode; options are the student's."""
    return stages(trial, **options)[trial.stage].method.train()


def stages(trial: Trial, **options: Any) -> list[Stage]:
    """All stages of the trial's method."""
    own, other = trial.networks if trial.task == "classification" else (OF_MAPS[trial.task],) * 2
    teacher = tiny(trial.teacher_width, seed=1, kind=other) if needs_teacher(trial.method) else None
    labels = split(40).targets if trial.task == "classification" else None
    setting = Setting(TASKS[trial.task], tuple("abcd"), labels, torch.arange(40), batch(2, task=trial.task),
                      hold_out=lambda part: Batches(split(12), 8, train=False))
    beside = "cnn" if trial.task == "classification" else own
    further = {role: [tiny(width, seed=7 + width, kind=beside) for width in widths]
               for role, widths in trial.further.items()}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        settings = MethodSettings(name=trial.method, **trial.options)
        return build_stages(settings, tiny(kind=own, **options), teacher, setting, further)


def split(count: int, task: Kind = "classification") -> Split:
    """Random uint8 images in memory, with targets of a task."""
    generator = torch.Generator().manual_seed(5)
    size = SIZE if task == "classification" else SCENE
    pixels = torch.randint(256, (count, *size), generator=generator, dtype=torch.uint8)
    return Split.whole(Images(pixels), _targets(count, task, generator))


def trainer(method: Method, folder: Path, *, epochs: float = 2, images: int = 30, batch_size: int = 8,
            search: bool = False, kind: type[Trainer] = Trainer, augment: bool = True,
            optimizers: Mapping[str, Mapping[str, Any]] | None = None) -> Trainer:
    """The loop around a method on random images; several ranks share each batch."""
    world, task = ranks.world(), task_of(method)
    companion = None
    if search:
        method = method.under(Learned(method.process, method.searchable()))
        held_out = Batches(split(24, task), 8 // world, train=True, rank=ranks.rank(), world=world)
        companion = Search(method, TASKS[task], held_out.at, every=2)
    own = Augmentation("crop-flip", 2) if augment and task == "classification" else Augmentation()
    views = Views((own, *[own] * len(method.views)))
    batches = Batches(split(images, task), batch_size // world, train=True, augmentation=views, rank=ranks.rank(),
                      world=world, seed=3)
    scored = Batches(split(20, task), 16, train=False, rank=ranks.rank(), world=world)
    torch.manual_seed(11)
    return kind([Stage(method, optimizers=optimizers or {})], TASKS[task], batches, {"test": scored}, Run(folder),
                TrainingSettings(epochs=epochs, precision="float32"), optimizer=OptimizerSettings(lr=0.02),
                schedule=ScheduleSettings(kind="cosine"), accelerator=engine.start("cpu"), companion=companion,
                display=Display(quiet=True))


# --- two ranks


@dataclass(frozen=True)
class Fit:
    """One training of a trial, told to several processes.

    Attributes:
        trial: What is trained.
        search: Whether a search goes beside.
        student: The student's options.
    """

    trial: Trial
    search: bool = False
    student: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return "-".join([self.trial.label, *["search"] * self.search, *self.student])

    def state(self, folder: Path) -> dict[str, Tensor]:
        """What an epoch leaves: parameters, searched weights, running statistics of members, memories of terms."""
        stage = stages(self.trial, **self.student)[self.trial.stage]
        run = trainer(stage.method.train(), folder, epochs=1, images=24, search=self.search,
                      optimizers=stage.optimizers)
        run.fit()
        state = {name: p.detach().clone() for name, p in run.method.named_parameters()}
        if isinstance(run.method.process, Learned):
            state["raw"] = run.method.process.raw.clone()
        return state | {name: buffer.clone() for name, buffer in run.method.named_buffers()
                        if name.startswith("terms.") != ("running" in name)}


class TwoRanks:
    """Trainings in two processes of their own, one launch for all; they go on while others work.

    Args:
        fits: What to train, one after the other; labels are unique.
        folder: Takes their runs.
    """

    def __init__(self, fits: Sequence[Fit], folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.folder = folder
        self._context = start_processes(_rank, (port, tuple(fits), folder), nprocs=2, join=False)

    def states(self) -> list[dict[str, dict[str, Tensor]]]:
        """Wait for them. For each rank: label -> the state that it ended with."""
        while self._context is not None and not self._context.join():
            pass
        return [torch.load(self.folder / f"rank{rank}.pt") for rank in range(2)]


def quiet() -> None:
    """Say nothing of terms that do not pull what ships, which is for real searches, nor of how accelerate is asked."""
    logging.getLogger("limbeck.search").addHandler(logging.NullHandler())
    warnings.simplefilter("ignore", FutureWarning)


def _rank(rank: int, port: int, fits: Sequence[Fit], folder: Path) -> None:
    quiet()
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    torch.save({fit.label: fit.state(folder / f"run{i}") for i, fit in enumerate(fits)}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()
