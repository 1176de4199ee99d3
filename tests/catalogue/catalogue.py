"""One row a method: how to build it on tiny networks, and whom each of its terms pulls.

Generic tests in this folder run every row; a new method is tested by adding its row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck import engine, ranks
from limbeck.config import MethodSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.data import Augmentation, Batches, Split
from limbeck.data.images import Images
from limbeck.members import Network, Statistics
from limbeck.method import Method, Setting, Stage
from limbeck.process import Learned
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.search import Search
from limbeck.seen import Batch
from limbeck.tasks.classification import Classification
from limbeck.trainer import Trainer
from limbeck.wiring import build_stages, needs_teacher

CLASSES = 4
SIZE = (3, 16, 16)


class TinyNet(nn.Module):
    """Three stages of conv, norm, ReLU; 8 channels wide by default."""

    def __init__(self, width: int = 8, num_classes: int = CLASSES, *, dropout: float = 0.0,
                 norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        widths = [width, width, 2 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        inputs = [width, *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=1 + (i > 0), padding=1, bias=False), norm(b), nn.ReLU())
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = {"stem": "stem", **{f"stage{i + 1}": f"stages.{i}" for i in range(3)},
                     **{f"stage{i + 1}.pre": f"stages.{i}.1" for i in range(3)}, "pooled": "fc:in"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(self.dropout(x.mean((2, 3))))


class TinyViT(nn.Module):
    """Four blocks over 4 x 4 patches and a class token."""

    def __init__(self, width: int = 8, num_classes: int = CLASSES, *, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True, norm_first=True) for _ in range(4))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x)[:, 0])


NETS: dict[str, Callable[..., nn.Module]] = {"cnn": TinyNet, "vit": TinyViT}


@dataclass(frozen=True)
class Row:
    """A method under test.

    Attributes:
        method: Its name.
        options: Its options, in place of the defaults.
        pulls: Term prefix -> members that it sends gradients to; every term must match a prefix.
        stage: Which of its stages, for a method that trains several.
        networks: Kinds of student and teacher, of `NETS`.
        further: Networks beside these, by the method's name for them; widths of tiny CNNs.
        lr: Rate with which its loss is to fall.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    pulls: dict[str, frozenset[str]] = field(default_factory=dict)
    stage: int = 0
    networks: tuple[str, str] = ("cnn", "cnn")
    further: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lr: float = 0.02

    @property
    def label(self) -> str:
        more = [f"{k}={v}" for k, v in self.options.items()] + [f"stage{self.stage}"] * bool(self.stage)
        return "-".join([self.method, *more, *(["to".join(reversed(self.networks))] if "vit" in self.networks else [])])


STUDENT = frozenset({"student"})
ROWS = [
    Row("none", pulls={"ce": STUDENT}),
    Row("kd", pulls={"ce": STUDENT, "kl": STUDENT}),
    Row("at", pulls={"ce": STUDENT, "stage": STUDENT}),
    Row("at", {"mode": "paper"}, {"ce": STUDENT, "stage": STUDENT}, networks=("cnn", "vit")),
    Row("kd+at", pulls={"ce": STUDENT, "kd/": STUDENT, "at/": STUDENT}),
    Row("reviewkd", {"warm_up": 0}, {"ce": STUDENT, "level": frozenset({"student", "review"})}),
    Row("distpro", pulls={"ce": STUDENT, "t": STUDENT}),
    Row("distpro", {"space": "official10", "kl": 1.0}, {"ce": STUDENT, "t": STUDENT, "kl": STUDENT}),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}),
]


def tiny(width: int = 8, *, seed: int = 0, kind: str = "cnn", **options: Any) -> Network:
    """An untrained tiny network, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETS[kind](width, **options)
    return Network(module, name=f"tiny{width}", size=SIZE, statistics=Statistics((0.5,) * 3, (0.25,) * 3),
                   factory=lambda: NETS[kind](width, **options))


def batch(count: int = 8, *, seed: int = 0) -> Batch:
    """Random images with labels."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(count, *SIZE, generator=generator), torch.randint(CLASSES, (count,), generator=generator),
                 torch.arange(count))


def built(row: Row, **options: Any) -> Method:
    """The row's method on tiny networks, in train mode; options are the student's."""
    return stages(row, **options)[row.stage].method.train()


def stages(row: Row, **options: Any) -> list[Stage]:
    """All stages of the row's method."""
    own, other = row.networks
    teacher = tiny(12, seed=1, kind=other) if needs_teacher(row.method) else None
    setting = Setting(Classification(), tuple("abcd"), split(40).targets, torch.arange(40), batch(2))
    further = {role: [tiny(width, seed=7 + width) for width in widths] for role, widths in row.further.items()}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return build_stages(MethodSettings(name=row.method, **row.options), tiny(kind=own, **options), teacher, setting,
                            further)


def split(count: int) -> Split:
    """Random uint8 images in memory."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(256, (count, *SIZE), generator=generator, dtype=torch.uint8)
    return Split.whole(Images(pixels), torch.randint(CLASSES, (count,), generator=generator))


def trainer(method: Method, folder: Path, *, epochs: float = 2, images: int = 30, batch_size: int = 8,
            search: bool = False, kind: type[Trainer] = Trainer, augment: bool = True) -> Trainer:
    """The loop around a method on random images, two ranks sharing each batch."""
    world = ranks.world()
    companion = None
    if search:
        method = method.under(Learned(method.process, method.searchable()))
        task = method.terms["ce"].task
        held_out = Batches(split(24), 8 // world, train=True, rank=ranks.rank(), world=world)
        companion = Search(method, task, held_out.at, every=2)
    augmentation = Augmentation("crop-flip", 2) if augment else None
    batches = Batches(split(images), batch_size // world, train=True, augmentation=augmentation, rank=ranks.rank(),
                      world=world, seed=3)
    scored = Batches(split(20), 16, train=False, rank=ranks.rank(), world=world)
    torch.manual_seed(11)
    return kind([Stage(method)], Classification(), batches, {"test": scored}, Run(folder),
                TrainingSettings(epochs=epochs), optimizer=OptimizerSettings(lr=0.02), schedule=ScheduleSettings(kind="cosine"),
                accelerator=engine.start("cpu"), companion=companion, display=Display(quiet=True))
