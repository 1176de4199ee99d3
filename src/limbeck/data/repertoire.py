"""A countable set of views of each image, so that what was computed of a view can be found again by its number.

A *view* is an image as an augmentation changed it. Crops and flips of small images have few: (2 p + 1)^2 windows of an
image padded by p, mirrored or not. Random boxes of large images, and whatever RandAugment does, are as good as
uncountable: there, some are drawn once, and training goes through these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.chance import generator
from limbeck.data.joint import Joint


class Repertoire(Protocol):
    """The views of an image that there are, numbered from 0."""

    @property
    def augmentation(self) -> Augmentation | Joint:
        """What makes them."""
        ...

    @property
    def count(self) -> int:
        """How many an image has."""
        ...

    def choose(self, rows: Tensor, draws: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """The views of one pass.

        Args:
            rows: Which images, (N,).
            draws: What was drawn for them, (N, K); the augmentation's own numbers come first.
            seed: Of the training.
            epoch: Which pass it is.

        Returns:
            The numbers to change the images by, (N, K), and `Batch.view_ids`: row * count + view, (N,).
        """
        ...

    def draws(self, rows: Tensor, view: int) -> Tensor:
        """Numbers that make one of the views of these images, (N, K)."""
        ...


@dataclass(frozen=True)
class EveryView:
    """All views that an augmentation can make: nothing changes in training, the views are only counted.

    View (y (2 p + 1) + x) m + mirrored, with the window's offsets y and x, and m = 2 where images are mirrored, else 1.

    Attributes:
        augmentation: A crop, with or without flips, or none.
    """

    augmentation: Augmentation

    @property
    def count(self) -> int:
        return views_of(self.augmentation) or 0

    @property
    def _side(self) -> int:
        return 2 * self.augmentation.padding + 1

    @property
    def _mirrored(self) -> int:
        return 1 + (self.augmentation.kind == "crop-flip")

    def choose(self, rows: Tensor, draws: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        if self.augmentation.kind == "none":
            return draws, rows.clone()
        offsets, flip = self.augmentation.window(draws[:, :self.augmentation.columns])
        view = (offsets[:, 0] * self._side + offsets[:, 1]) * self._mirrored
        return draws, rows * self.count + (view if flip is None else view + flip)

    def draws(self, rows: Tensor, view: int) -> Tensor:
        place, flip = divmod(view, self._mirrored)
        offsets = [(offset + 0.5) / self._side for offset in divmod(place, self._side)]
        numbers = [*offsets, 0.25 if flip else 0.75][:self.augmentation.columns]
        return torch.tensor(numbers).expand(len(rows), -1)


@dataclass(frozen=True)
class SomeViews:
    """So many views of each image, drawn once: a pass takes one of each image, and so many passes take each once.

    Attributes:
        augmentation: What is drawn for.
        images: How many images the store has, whichever of them are trained on.
        count: Views of an image.
        seed: Of the views. It is not that of the training, which decides their order: runs share the views.
    """

    augmentation: Augmentation | Joint
    images: int
    count: int
    seed: int = 0

    def choose(self, rows: Tensor, draws: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        again, place = divmod(epoch, self.count)
        view = int(torch.randperm(self.count, generator=generator("views", seed, again))[place])
        rest = draws[:, self.augmentation.columns:]
        return torch.cat([self.draws(rows, view), rest], 1), rows * self.count + view

    def draws(self, rows: Tensor, view: int) -> Tensor:
        return self.augmentation.draw(self.images, generator("view", self.seed, view))[rows]


def views_of(augmentation: Augmentation | Joint) -> int | None:
    """How many views of an image an augmentation can make; None where they are not counted."""
    if isinstance(augmentation, Joint) or augmentation.after is not None:
        return None  # colours, turns and erased boxes are as many as random boxes
    windows = (2 * augmentation.padding + 1) ** 2
    return {"none": 1, "crop": windows, "crop-flip": 2 * windows}.get(augmentation.kind)
