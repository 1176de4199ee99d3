"""Where a split's images come from, in memory or streamed, and how splits are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.augment import Augmentation, Views
from limbeck.data.chance import generator
from limbeck.data.joint import Joint
from limbeck.errors import Mistake

AnyChange = Augmentation | Views | Joint
"""How a batch is changed: its images, or its images and maps together."""


class Store(Protocol):
    """All images of a split, by row."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def channels(self) -> int:
        """Of an image."""
        ...

    @property
    def mapped(self) -> bool:
        """Whether each image has a map."""
        ...

    def __len__(self) -> int: ...

    def batches(self, rows: Tensor, draws: Tensor, batch_size: int, augmentation: AnyChange,
                device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Images, float32 in [0, 1], their rows, and targets where each image has a map; all on the device, in order.

        Args:
            rows: Which images, (N,), on the CPU.
            draws: What `Augmentation.draw` drew for them, (N, K), on the CPU; K is 0 in evaluation.
            batch_size: Images a batch; the last may have fewer.
            augmentation: What the draws mean.
            device: Where images are wanted.
            workers: Processes that decode, where there is something to decode.
        """
        ...

    def sample(self, rows: Tensor) -> Tensor:
        """Plain pixels, uint8 (N, 3, H, W), on the CPU."""
        ...

    def maps(self, rows: Tensor) -> Tensor | None:
        """Plain targets (N, H, W), on the CPU, where each image has a map."""
        ...


class Held:
    """What is in memory, and goes to a device once, whole, to be cut there.

    Args:
        tensor: (N, ...).
    """

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self._places: dict[torch.device, Tensor] = {tensor.device: tensor}

    def at(self, rows: Tensor) -> Tensor:
        """These rows, on their device."""
        tensor = self._on(rows.device)
        return tensor.index_select(0, rows.to(tensor.device)).to(rows.device)

    def _on(self, device: torch.device) -> Tensor:
        """It on the device; or where it is, if it would take more than half of what is free there."""
        if device not in self._places:
            room = self.tensor.nbytes <= torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else True
            self._places[device] = self.tensor.to(device) if room else self.tensor
        return self._places[device]


class Images:
    """Images in memory.

    Args:
        pixels: uint8 (N, 3, H, W).
        enlarged: Pixels a side that the square in the middle is brought to, batch by batch before it is augmented; None
            leaves images as they are. So small images that are wanted large take little memory.
    """

    mapped = False

    def __init__(self, pixels: Tensor, enlarged: int | None = None):
        self.pixels, self.enlarged, self.channels = pixels, enlarged, pixels.shape[1]
        self.image_size = (pixels.shape[2], pixels.shape[3]) if enlarged is None else (enlarged, enlarged)
        self._held = Held(pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, rows: Tensor, draws: Tensor, batch_size: int, augmentation: AnyChange,
                device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor, None]]:
        assert not isinstance(augmentation, Joint)
        rows, draws = rows.to(device, non_blocking=True), draws.to(device, non_blocking=True)
        for index, drawn in zip(rows.split(batch_size), draws.split(batch_size), strict=True):
            yield augmentation(resize(self._held.at(index), self.enlarged), drawn), index, None

    def sample(self, rows: Tensor) -> Tensor:
        return resize(self.pixels[rows], self.enlarged)

    def maps(self, rows: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Split:
    """Some images of a store, and their classes.

    Attributes:
        store: The images of the whole split that this one is, or was cut from.
        targets: Class of each image of the store, int64 on the CPU; None for unlabelled images.
        index: The rows of the store that are in this split, (N,): what `Batch.index` tells.
    """

    store: Store
    targets: Tensor | None
    index: Tensor

    @classmethod
    def whole(cls, store: Store, targets: Tensor | None) -> Split:
        """All images of a store."""
        return cls(store, targets, torch.arange(len(store)))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def labelled(self) -> bool:
        """Whether its images have classes, or maps."""
        return self.targets is not None or self.store.mapped

    @property
    def labels(self) -> Tensor | None:
        """Class of each image of this split, (N,); None for unlabelled images."""
        return None if self.targets is None else self.targets[self.index]

    def subset(self, indices: Tensor) -> Split:
        """The images at these places of this split; they keep their rows, and nothing is copied."""
        return replace(self, index=self.index[indices])


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Cuts off a random part, by class.

    Args:
        split: What is cut.
        fraction: Of each class, to the nearest image; a class of two images or more has one at least on either side.
        seed: The same seed gives the same cut; a class's cut depends on its own images alone.

    Returns:
        The rest, and what is held out. Disjoint, together all of the split.

    Raises:
        Mistake: If the fraction is not between 0 and 1, or nothing could be held out.
    """
    if not 0 < fraction < 1:
        raise Mistake(f"the fraction held out must be between 0 and 1; got {fraction}. 0.1 holds out a tenth")
    held = stratified(split.labels, len(split), fraction, seed)
    if not held.any():
        raise Mistake(f"holding out needs a class of two images at least; these {len(split)} have none. "
                      "Give more training images")
    return split.subset((~held).nonzero()[:, 0]), split.subset(held.nonzero()[:, 0])


def stratified(labels: Tensor | None, images: int, fraction: float, seed: int) -> Tensor:
    """Which of the images are cut off: the fraction of every class, (N,), bool. Unlabelled images are one class."""
    held = torch.zeros(images, dtype=torch.bool)
    classes = torch.zeros(images, dtype=torch.int64) if labels is None else labels
    for c in classes.unique().tolist():
        places = (classes == c).nonzero()[:, 0]
        wanted = min(max(1, round(fraction * len(places))), len(places) - 1)
        held[places[torch.randperm(len(places), generator=generator("hold out", seed, c))[:wanted]]] = True
    return held


def resize(pixels: Tensor, size: int | None) -> Tensor:
    """The squares in the middle of decoded images, uint8 (N, 3, H, W), antialiased (bilinear) to `size` a side."""
    h, w = pixels.shape[2:]
    if size is None or (h, w) == (size, size):
        return pixels
    side = min(h, w)
    pixels = pixels[:, :, (h - side) // 2:(h + side) // 2, (w - side) // 2:(w + side) // 2]
    exact = pixels.device.type == "cpu"  # where whole numbers are interpolated as such
    return torch.cat([resized if exact else resized.round_().clamp_(0, 255).byte() for resized in (
        F.interpolate(part if exact else part.float(), (size, size), mode="bilinear", antialias=True)
        for part in pixels.split(4096))])
