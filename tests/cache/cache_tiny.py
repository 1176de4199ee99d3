"""A method on tiny networks whose teacher is remembered, and the loop around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from limbeck import ranks
from limbeck.cache import Remembered, Remembering, remember
from limbeck.config import CacheSettings
from limbeck.contract.trial import Fit, Trial, built, split, stages, trainer
from limbeck.data import Augmentation, Batches
from limbeck.method import Method, Stage
from limbeck.training.trainer import Trainer

KD = Trial("kd")
CROPS = Augmentation("crop-flip", 2)  # as contract.trial.trainer changes its images
IMAGES = 30


def remembered(method: Method | Sequence[Stage], folder: Path, *, images: int = IMAGES,
               augmentation: Augmentation = CROPS, about: dict[str, Any] | None = None, **settings: Any) -> Remembering:
    """The method's frozen networks remembered in a folder, in float32 unless the settings say otherwise."""
    parts = [Stage(method)] if isinstance(method, Method) else method
    chosen = CacheSettings(**{"folder": str(folder), "precision": "float32", **settings})
    return remember(parts, chosen, split(images), augmentation, about or {})


def cached(folder: Path, trial: Trial = KD, *, run: str = "run", kind: type[Trainer] = Trainer, images: int = IMAGES,
           epochs: float = 2, dropout: float = 0.0, search: bool = False, **settings: Any) -> Trainer:
    """The loop around a trial whose teacher is remembered in `folder/cache`."""
    method = built(trial, dropout=dropout)
    found = remembered(method, folder / "cache", images=images, **settings)
    made = trainer(method, folder / run, kind=kind, images=images, epochs=epochs, search=search)
    made.batches.repertoire = found.repertoire
    return made


def batches(found: Remembering, images: int = IMAGES, **more: Any) -> Batches:
    """Training batches of eight, whose views are counted."""
    return Batches(split(images), 8, train=True, augmentation=found.repertoire.augmentation,
                   repertoire=found.repertoire, **more)


def teacher(method: Method) -> Remembered:
    """The method's remembered teacher."""
    one = method.frozen["teacher"]
    assert isinstance(one, Remembered)
    return one


class CachedFit(Fit):
    """KD on two ranks, twice over one cache: filling it, and reading what both ranks stored."""

    def state(self, folder: Path) -> dict[str, torch.Tensor]:
        shares = []
        for run in ("first", "second"):
            made = cached(folder, run=run, images=24, epochs=2, views=1)
            made.fit()
            shares += [record["cached"]["teacher"] for record in made.run.records() if record["kind"] == "train"]
        state = {name: p.detach().clone() for name, p in made.method.named_parameters()}
        if ranks.rank() == 0:
            state["shares"] = torch.tensor(shares)
        return state | {"stored": torch.tensor(teacher(made.method).cache.stored)}


__all__ = ["CROPS", "IMAGES", "KD", "CachedFit", "batches", "built", "cached", "remembered", "split", "stages",
           "teacher"]
