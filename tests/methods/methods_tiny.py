"""Fixed logits in place of networks, a method's total on them, and staged methods in the one loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.config import OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.contract.trial import CLASSES, batch, split
from limbeck.data import Batches
from limbeck.method import Companion, Method, Setting, Stage
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.seen import Clock
from limbeck.tasks.classification import Classification
from limbeck.training import engine
from limbeck.training.trainer import Trainer

NOW = Clock(5, 20, 10)
LABELS = batch().targets


def setting(seed: int = 0) -> Setting:
    """A classification job of four classes."""
    return Setting(Classification(), tuple("abcd"), None, torch.arange(0), batch(2), seed)


def logits(*names: str, seed: int = 0) -> dict[str, Tensor]:
    """Float64 logits for eight images, a leaf for each name."""
    chance = torch.Generator().manual_seed(seed)
    drawn = {name: 3 * torch.randn(8, CLASSES, dtype=torch.float64, generator=chance) for name in names}
    return {name: z.requires_grad_() for name, z in drawn.items()}


def losses(method: Method, known: dict[str, Tensor], now: Clock = NOW) -> dict[str, Tensor]:
    """The active terms' values on these logits."""
    seen = method.see(batch(), now, known={name: {"logits": z} for name, z in known.items()})
    return method(seen, method.process.active(now))


def total(method: Method, known: dict[str, Tensor], now: Clock = NOW) -> Tensor:
    """The weighted loss on these logits."""
    weights = dict(zip(method.process.names, method.process.weights(now).double(), strict=True))
    return sum(weights[name] * loss for name, loss in losses(method, known, now).items())


def ce(z: Tensor) -> Tensor:
    """Cross-entropy with the labels, written plainly."""
    return -F.log_softmax(z, dim=1)[torch.arange(8), LABELS].mean()


def kl(z: Tensor, target: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(target || z) of softened beliefs, written plainly."""
    p, q = (x.div(temperature).softmax(dim=1) for x in (target, z))
    return temperature**2 * (p * (p.log() - q.log())).sum(dim=1).mean()


def trainer(stages: Sequence[Stage], folder: Path, *, epochs: float = 1, kind: type[Trainer] = Trainer,
            companion: Companion | None = None) -> Trainer:
    """The one loop around all stages, on random images: two steps an epoch."""
    scored = {"test": Batches(split(8), 8, train=False)}
    return kind(stages, Classification(), Batches(split(16), 8, train=True, seed=3), scored, Run(folder),
                TrainingSettings(epochs=epochs, precision="float32"), optimizer=OptimizerSettings(lr=0.02),
                schedule=ScheduleSettings(kind="cosine"), accelerator=engine.start("cpu"), display=Display(quiet=True),
                companion=companion)
