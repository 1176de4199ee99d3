"""A data set made ready: its splits at one size, its statistics, and what tells it from others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.images import Images, Split
from limbeck.data.joint import Joint
from limbeck.data.scenes import Scenes
from limbeck.tasks import Task
from limbeck.tasks.classification import Classification

SAMPLE = 2048         # images that speak for a split which is not held in memory
SAMPLED = 2**28       # their pixels together, at most; but 64 images at least
AT_ONCE = 2**26       # pixels that are looked at together
EVALUATED = 256, 2**22  # images, and for dense tasks pixels, of which a network is asked at once


_CLASSES = Classification()


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, for images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Data:
    """Images to train on and images to be scored on.

    Attributes:
        name: What the data set is called.
        classes: Names, in the order of the targets; empty where nothing is labelled.
        train: What is trained on.
        test: What is scored, and decides nothing.
        augmentation: How training images are to be changed.
        skipped: Images that could not be decoded and were left out.
        notes: What was decided that the user did not ask for, a sentence each.
        task: What the targets are for.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    augmentation: Augmentation | Joint
    skipped: int = 0
    notes: tuple[str, ...] = ()
    task: Task = _CLASSES

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of what is trained on; whole images that are scored may be larger."""
        crop = self.augmentation.crop if isinstance(self.augmentation, Joint) else None
        return crop or self.train.store.image_size

    @property
    def channels(self) -> int:
        """Of an image: 3, or 4 where it brings along readings of depth."""
        return self.train.store.channels

    @property
    def at_once(self) -> int:
        """Images in a batch that is scored."""
        images, pixels = EVALUATED
        height, width = self.test.store.image_size
        return images if self.task.name == "classification" else max(1, min(images, pixels // (height * width)))

    @cached_property
    def statistics(self) -> Statistics:
        """Of the plain training images; of some 2,000 evenly spaced ones where they are not held in memory.

        A channel's deviation is never below 1/255, so that one can divide by it.
        """
        counts = torch.zeros(3, 256, dtype=torch.float64)
        for chunk in _chunks(self.train):
            pixels = self.train.store.sample(chunk)
            counts += torch.stack([pixels[:, c].flatten().bincount(minlength=256) for c in range(3)])
        share, value = counts / counts.sum(1, keepdim=True), torch.arange(256) / 255
        mean = share @ value.double()
        std = (share * (value - mean[:, None]) ** 2).sum(1).sqrt().clamp_min(1 / 255)
        return Statistics(tuple(mean.tolist()), tuple(std.tolist()))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell images, labels and class names from any others.

        Of images that are not held in memory, some 2,000 evenly spaced ones of each split are looked at.
        """
        digest = hashlib.blake2b(repr((self.classes, self.train.store.image_size)).encode(), digest_size=8)
        for split in (self.train, self.test):
            digest.update(repr(len(split)).encode())
            if (labels := split.labels) is not None:
                digest.update(labels.numpy().data)
            for chunk in _chunks(split):
                digest.update(split.store.sample(chunk).numpy().data)
                if (maps := split.store.maps(chunk)) is not None:
                    digest.update(maps.numpy().data)
        return digest.hexdigest()


def _chunks(split: Split) -> Sequence[Tensor]:
    """Rows that speak for a split, as many at a time as fit in memory: all where they are held there at their size."""
    height, width = split.store.image_size
    count = min(SAMPLE, max(64, SAMPLED // (height * width)))
    held = isinstance(split.store, Scenes) or (isinstance(split.store, Images) and split.store.enlarged is None)
    rows = split.index if held or len(split) <= count else split.index[torch.arange(count) * len(split) // count]
    return rows.split(max(1, min(1024, AT_ONCE // (height * width))))
