"""A data set made ready: its splits at one size, its statistics, and what tells it from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.images import Images, Split

SAMPLE = 2048  # images that speak for a split which is not held in memory


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
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    augmentation: Augmentation
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.train.store.image_size

    @cached_property
    def statistics(self) -> Statistics:
        """Of the plain training images; of some 2,000 evenly spaced ones where they are not held in memory.

        A channel's deviation is never below 1/255, so that one can divide by it.
        """
        counts = torch.zeros(3, 256, dtype=torch.float64)
        for chunk in _sampled(self.train).split(1024):
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
        digest = hashlib.blake2b(repr((self.classes, self.image_size)).encode(), digest_size=8)
        for split in (self.train, self.test):
            digest.update(repr(len(split)).encode())
            if (labels := split.labels) is not None:
                digest.update(labels.numpy().data)
            for chunk in _sampled(split).split(1024):
                digest.update(split.store.sample(chunk).numpy().data)
        return digest.hexdigest()


def _sampled(split: Split) -> Tensor:
    """Rows that speak for a split: all where they are in memory at their size."""
    whole = isinstance(split.store, Images) and split.store.enlarged is None
    if whole or len(split) <= SAMPLE:
        return split.index
    return split.index[torch.arange(SAMPLE) * len(split) // SAMPLE]
