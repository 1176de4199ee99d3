"""Images with a map each, in memory or decoded as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from limbeck.data.augment import unit
from limbeck.data.decode import THREADS, Encoded, Unreadable, open_rgb
from limbeck.data.images import AnyChange, Held
from limbeck.data.joint import Joint
from limbeck.data.reading import Reading
from limbeck.data.sparse import sparse_samples
from limbeck.errors import Mistake

Size = tuple[int, int]


@dataclass(frozen=True)
class Pairs:
    """Pictures and their maps, still encoded.

    Attributes:
        images: The pictures.
        maps: Theirs, in the same order.
        reading: How maps are read.
        size: Height and width to bring both to: pictures antialiased (bilinear), maps by the nearest pixel.
    """

    images: Encoded
    maps: Encoded
    reading: Reading
    size: Size

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Sequence[int]) -> Pairs:
        """Only these pairs, in this order."""
        return Pairs(self.images.select(rows), self.maps.select(rows), self.reading, self.size)

    def read(self, rows: Sequence[int], *, threads: int, skip: bool = False) -> tuple[Tensor, Tensor, list[int]]:
        """Pixels, uint8 (N, 3, H, W); stored maps (N, H, W); and which rows they are.

        Raises:
            Mistake: If one cannot be decoded and is not to be skipped, or its map has another shape.
        """

        def pair(picture: Path | bytes, scene: Path | bytes, row: int) -> tuple[NDArray[Any], NDArray[Any]] | None:
            try:
                image = open_rgb(picture, self.images.name(row))
                stored = self.reading.stored(scene, self.maps.name(row))
            except Unreadable:
                if skip:
                    return None
                raise
            return self._fitted(image, stored, row)

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(pair, self.images.read(rows), self.maps.read(rows), rows))
        kept = [both for both in found if both is not None]
        if not kept:
            return torch.empty(0, 3, *self.size, dtype=torch.uint8), torch.empty(0, *self.size), []
        pixels = torch.from_numpy(np.stack([image for image, _ in kept]).transpose(0, 3, 1, 2)).contiguous()
        return pixels, torch.from_numpy(np.stack([stored for _, stored in kept])), [
            row for row, both in zip(rows, found, strict=True) if both is not None]

    def _fitted(self, image: Image.Image, stored: NDArray[Any], row: int) -> tuple[NDArray[Any], NDArray[Any]]:
        height, width = stored.shape
        if abs(height * image.width - width * image.height) > max(image.size):
            raise Mistake(f"a map needs the shape of its image; {self.maps.name(row)} has {width}x{height} pixels, "
                          f"{self.images.name(row)} {image.width}x{image.height}. Cut them alike")
        h, w = self.size
        if image.size != (w, h):
            image = image.resize((w, h), Image.Resampling.BILINEAR)
        if (height, width) != self.size:
            rows, columns = ((np.arange(to) * 2 + 1) * side // (2 * to) for to, side in
                             zip(self.size, (height, width), strict=True))
            stored = stored[rows[:, None], columns]
        return np.asarray(image), stored


@dataclass(frozen=True)
class Look:
    """What a network gets of pixels and stored maps.

    Attributes:
        reading: How maps become targets.
        sparse: How many readings of depth an image brings along as its fourth channel; 0: none, and three channels.
    """

    reading: Reading
    sparse: int = 0

    @property
    def channels(self) -> int:
        """Of an image."""
        return 4 if self.sparse else 3

    def __call__(self, pixels: Tensor, stored: Tensor, rows: Tensor, draws: Tensor,
                 change: AnyChange) -> tuple[Tensor, Tensor]:
        """Images, float32 (N, C, h, w), and targets (N, h, w).

        In training the readings are drawn anew each time; in evaluation they depend on the image's row alone, so that
        all networks are scored on the same ones.
        """
        if isinstance(change, Joint):
            images, maps, scale = change(pixels, stored, draws, self.reading.outside)
            targets, keys = self.reading.targets(maps, scale), (draws[:, -1] * 2**24).long()
        else:
            images, targets, keys = unit(pixels), self.reading.targets(stored, None), rows
        if self.sparse:
            images = torch.cat([images, sparse_samples(targets, keys, self.sparse)[:, None]], dim=1)
        return images, targets


class Scenes:
    """Images and maps in memory, which go to a device once, whole.

    Args:
        pixels: uint8 (N, 3, H, W).
        stored: Maps, (N, H, W).
        look: What becomes of both.
    """

    mapped = True

    def __init__(self, pixels: Tensor, stored: Tensor, look: Look):
        self.pixels, self.stored, self.look = Held(pixels), Held(stored), look
        self.image_size, self.channels = (pixels.shape[2], pixels.shape[3]), look.channels

    def __len__(self) -> int:
        return len(self.pixels.tensor)

    def batches(self, rows: Tensor, draws: Tensor, batch_size: int, augmentation: AnyChange, device: torch.device,
                workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        rows, draws = rows.to(device), draws.to(device)
        for index, drawn in zip(rows.split(batch_size), draws.split(batch_size), strict=True):
            images, targets = self.look(self.pixels.at(index), self.stored.at(index), index, drawn, augmentation)
            yield images, index, targets

    def sample(self, rows: Tensor) -> Tensor:
        return self.pixels.tensor[rows]

    def maps(self, rows: Tensor) -> Tensor:
        return self.look.reading.targets(self.stored.tensor[rows], None)


@dataclass(frozen=True)
class StreamedScenes:
    """Images and maps decoded anew at every use, whole; what is changed is changed on the device.

    Attributes:
        pairs: The pictures.
        look: What becomes of them.
    """

    pairs: Pairs
    look: Look
    mapped = True

    @property
    def image_size(self) -> Size:
        """Height and width."""
        return self.pairs.size

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.look.channels

    def __len__(self) -> int:
        return len(self.pairs)

    def batches(self, rows: Tensor, draws: Tensor, batch_size: int, augmentation: AnyChange, device: torch.device,
                workers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `Store.batches`; without workers a few threads of this process decode."""
        parts = [index.numpy() for index in rows.split(batch_size)]  # tensors would take a file handle each
        loader = DataLoader(_Decoded(self.pairs, threads=1 if workers else THREADS), sampler=parts, batch_size=None,
                            num_workers=workers, pin_memory=device.type == "cuda",
                            generator=torch.Generator())  # or it would draw from the global one, which dropout uses
        for index, drawn, decoded in zip(rows.split(batch_size), draws.split(batch_size), loader, strict=True):
            if isinstance(decoded, Mistake):
                raise decoded
            pixels, stored = (x.to(device, non_blocking=True) for x in decoded)
            own = index.to(device)
            images, targets = self.look(pixels, stored, own, drawn.to(device), augmentation)
            yield images, own, targets

    def sample(self, rows: Tensor) -> Tensor:
        return self.pairs.read(rows.tolist(), threads=THREADS)[0]

    def maps(self, rows: Tensor) -> Tensor:
        return self.look.reading.targets(self.pairs.read(rows.tolist(), threads=THREADS)[1], None)


class _Decoded(Dataset[tuple[Tensor, Tensor] | Mistake]):
    """A batch of decoded pairs by its rows, for the workers."""

    def __init__(self, pairs: Pairs, *, threads: int):
        self.pairs, self.threads = pairs, threads

    def __getitem__(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor] | Mistake:
        try:
            return self.pairs.read(rows.tolist(), threads=self.threads)[:2]
        except Mistake as error:
            return error  # raised in a worker, it would arrive wrapped in the worker's traceback
