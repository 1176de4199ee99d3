"""Images too large to be held: decoded by worker processes as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from limbeck.data.augment import COLUMNS, Augmentation, resized_boxes
from limbeck.data.decode import THREADS, Encoded, Unreadable, middle, open_rgb, pixels, squared
from limbeck.data.images import AnyChange
from limbeck.data.joint import Joint

MARGIN = 224 / 256  # the middle that is looked at in evaluation, where training looked at resized crops

Part = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and draws of a batch, as arrays: tensors would take a file handle each on their way to a worker."""


@dataclass(frozen=True)
class Streamed:
    """Images decoded anew at every use.

    Attributes:
        encoded: The pictures.
        size: Pixels a side.
        share: Of the shorter side, how much the plain square in the middle takes.
    """

    encoded: Encoded
    size: int
    share: float = 1.0
    channels = 3
    mapped = False

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.size, self.size

    def __len__(self) -> int:
        return len(self.encoded)

    def batches(self, rows: Tensor, draws: Tensor, batch_size: int, augmentation: AnyChange,
                device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor, None]]:
        """As `Store.batches`: resized crops are cut where pictures are decoded, other crops from whole batches.

        Without workers a few threads of this process decode.
        """
        assert not isinstance(augmentation, Joint)
        boxed = augmentation.kind == "resized-crop"
        parts = [(index.numpy(), drawn.numpy())
                 for index, drawn in zip(rows.split(batch_size), draws.split(batch_size), strict=True)]
        loader = DataLoader(_Views(self, boxed=boxed, threads=1 if workers else THREADS), sampler=parts,
                            batch_size=None, num_workers=workers, pin_memory=device.type == "cuda",
                            generator=torch.Generator())  # or it would draw from the global one, which dropout uses
        change = augmentation.decoded if boxed and isinstance(augmentation, Augmentation) else augmentation
        for (index, drawn), views in zip(parts, loader, strict=True):
            if isinstance(views, Unreadable):
                raise views
            images = change(views.to(device, non_blocking=True), torch.from_numpy(drawn).to(device))
            yield images, torch.from_numpy(index).to(device), None

    def sample(self, rows: Tensor) -> Tensor:
        """As `Store.sample`: the squares in the middle."""
        return self.views(rows.tolist(), None, threads=THREADS)

    def maps(self, rows: Tensor) -> None:
        return None

    def views(self, rows: Sequence[int], draws: Tensor | None, *, threads: int) -> Tensor:
        """Pixels, uint8 (N, 3, size, size): random boxes where there are draws, else the square in the middle."""

        def view(picture: Path | bytes, row: int, drawn: Tensor | None) -> Image.Image:
            image = open_rgb(picture, self.encoded.name(row))
            if drawn is None:
                return squared(image, self.size, middle(image, self.share))
            top, left, height, width = resized_boxes(drawn[None], image.height, image.width)[0].tolist()
            image = squared(image, self.size, (left, top, left + width, top + height))
            return ImageOps.mirror(image) if drawn[-1] < 0.5 else image

        each = [None] * len(rows) if draws is None else list(draws)
        with ThreadPoolExecutor(threads) as pool:
            return pixels(list(pool.map(view, self.encoded.read(rows), rows, each)))


class _Views(Dataset[Tensor | Unreadable]):
    """A batch of views by its rows and draws, for the workers."""

    def __init__(self, store: Streamed, *, boxed: bool, threads: int):
        self.store = store
        self.boxed = boxed
        self.threads = threads

    def __getitem__(self, part: Part) -> Tensor | Unreadable:
        rows, drawn = part
        draws = torch.from_numpy(drawn[:, :COLUMNS["resized-crop"]]) if self.boxed else None
        try:
            return self.store.views(rows.tolist(), draws, threads=self.threads)
        except Unreadable as error:
            return error  # raised in a worker, it would arrive wrapped in the worker's traceback
