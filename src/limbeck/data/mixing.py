"""Mixup and CutMix: every image of a batch mixed with its neighbour, and their classes in the same shares."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.chance import number
from limbeck.seen import Batch


class Drawn(NamedTuple):
    """How a batch is mixed.

    Attributes:
        share: Of the image itself in each pixel, or, with a box, of its area.
        box: Top, bottom, left and right of what comes from the neighbour; None mixes every pixel.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Mixing:
    """Mixes whole batches where they are, as a function of seed, epoch, step and rank.

    With lambda from Beta(alpha, alpha), image i and the one before it, its neighbour (the first one's is the last):
        mixup:  x_i = lambda x_i + (1 - lambda) x_i-1;
        CutMix: a box of 1 - lambda of the area, cut off at the edge, comes from x_i-1; lambda is what is left.
    Targets become class probabilities lambda one_hot(y_i) + (1 - lambda) one_hot(y_i-1). Further views of the images
    are mixed alike.

    Attributes:
        classes: How many there are.
        mixup: Its alpha; 0 for none.
        cutmix: Its alpha; 0 for none.
        probability: Of a batch to be mixed.
        switch: Of CutMix, where both are on.
        seed: Of what is drawn.
        rank: Which rank's batches; each mixes its own.

    Source: Zhang et al., mixup, ICLR 2018, arXiv:1710.09412; Yun et al., CutMix, ICCV 2019, arXiv:1905.04899; boxes and
    neighbours as in torchvision.transforms.v2. timm, and so DeiT, mixes image i with image N - 1 - i.
    """

    classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5
    seed: int = 0
    rank: int = 0

    def __call__(self, batch: Batch, epoch: int, step: int) -> Batch:
        """The batch mixed; one that is not to be mixed has class probabilities, too."""
        height, width = batch.images.shape[-2:]
        drawn = self.drawn(epoch, step, height, width)
        targets = batch.targets
        if targets is not None:
            sure = F.one_hot(targets, self.classes).to(batch.images.dtype)                           # (N, C)
            targets = torch.lerp(sure.roll(1, 0), sure, drawn.share)
        if drawn.share == 1:
            return replace(batch, targets=targets)
        return replace(batch, images=mixed(batch.images, drawn), targets=targets, view_ids=None,
                       views=tuple(mixed(view, drawn) for view in batch.views))

    def drawn(self, epoch: int, step: int, height: int, width: int) -> Drawn:
        """How the batch of a step is mixed; images have so many pixels."""
        chance = random.Random(number("mix", self.seed, epoch, step, self.rank))
        if chance.random() >= self.probability:
            return Drawn(1.0)
        if not (self.cutmix and (not self.mixup or chance.random() < self.switch)):
            return Drawn(chance.betavariate(self.mixup, self.mixup))
        half = 0.5 * math.sqrt(1 - chance.betavariate(self.cutmix, self.cutmix))
        y, x = chance.randrange(height), chance.randrange(width)
        top, bottom = max(y - int(half * height), 0), min(y + int(half * height), height)
        left, right = max(x - int(half * width), 0), min(x + int(half * width), width)
        return Drawn(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def mixed(images: Tensor, drawn: Drawn) -> Tensor:
    """Images (N, C, H, W), each with its neighbour."""
    if drawn.box is None:
        return torch.lerp(images.roll(1, 0), images, drawn.share)
    top, bottom, left, right = drawn.box
    result = images.clone()
    result[..., top:bottom, left:right] = images[..., top:bottom, left:right].roll(1, 0)
    return result
