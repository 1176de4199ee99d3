"""Tiny data sets of images and maps in every layout, and colours that tell where they are from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

SIZE = (6, 8)


def places(images: int = 2, height: int = 24, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose red is 8 x the column and green 8 x the row, and maps of row * 64 + column."""
    rows, columns = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    pixels = torch.stack([columns * 8, rows * 8, torch.full_like(rows, 255)]).to(torch.uint8)
    maps = (rows * 64 + columns).to(torch.int16)
    return pixels.expand(images, -1, -1, -1).contiguous(), maps.expand(images, -1, -1).contiguous()


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A random photograph."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def labels(seed: int, size: tuple[int, int] = SIZE, classes: int = 3) -> Image.Image:
    """A random label map, one pixel of which is 255."""
    numbers = np.random.default_rng(seed).integers(0, classes, size, dtype=np.uint8)
    numbers[0, 0] = 255
    return Image.fromarray(numbers)


def depths(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A random depth map of 16 bits, up to 4 m in millimetres; two pixels of it hold no distance."""
    counts = np.random.default_rng(seed).integers(500, 4000, size, dtype=np.uint16)
    counts[0, 0], counts[0, 1] = 0, 65535
    return Image.fromarray(counts)


def png(image: Image.Image | NDArray[Any]) -> bytes:
    """A file's contents."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, "PNG")
    return stream.getvalue()


def put(path: Path, image: Image.Image) -> None:
    """A file, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def pairs(folder: Path, kind: str = "labels", layout: str = "{kind}/{split}",
          splits: tuple[str, ...] = ("train", "val"), images: int = 5, size: tuple[int, int] = SIZE) -> Path:
    """A folder of images and maps."""
    maps = {"labels": labels, "depth": depths}[kind]
    for split in splits:
        for i in range(images):
            name, seed = f"{i}.png", 100 * len(split) + i
            put(folder / layout.format(kind="images", split=split) / name, picture(seed, size))
            put(folder / layout.format(kind=kind, split=split) / name, maps(seed, size))
    return folder


def parquet(folder: Path, columns: dict[str, list[bytes]], split: str = "train") -> None:
    """A parquet file of image columns, as the hub has them."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({name: datasets.Image() for name in columns})
    rows = {name: [{"bytes": one, "path": None} for one in files] for name, files in columns.items()}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
