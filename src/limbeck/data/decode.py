"""Undecoded pictures to RGB pixels: whatever their mode, the right way up, at the size asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from limbeck.errors import Mistake

THREADS = 4
LOOKED_AT = 32  # pictures of a split whose sizes speak for all
CHUNK = 256  # pictures read and decoded by one task of a thread

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels, as Pillow has them."""


class Unreadable(Mistake):
    """A picture that cannot be decoded, named."""


class Encoded(Protocol):
    """Pictures that are still files or bytes."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[Path | bytes]:
        """Files, or the contents of files, still to be decoded."""
        ...

    def name(self, row: int) -> str:
        """What to call a picture in a message: its path, or its row."""
        ...

    def select(self, rows: Sequence[int]) -> Encoded:
        """Only these pictures, in this order."""
        ...

    def mark(self) -> str | None:
        """What tells these pictures from others, and from themselves once they change; None where nothing does."""
        ...


def rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB.

    Transparent pixels are laid on white, the colour of the page that such drawings are made for. Of 16 bits the upper 8
    are kept, as Pillow does for 16-bit colour.

    Raises:
        ValueError: For images of 32-bit floats, which have no fixed range.
    """
    if image.mode == "F":
        raise ValueError("32-bit floats have no fixed range")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def open_rgb(picture: Path | bytes, name: str) -> Image.Image:
    """A decoded RGB image, turned as its EXIF orientation says.

    Raises:
        Unreadable: If it is cut short, is no image, or is of a kind that Pillow does not know.
    """
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            image.load()
            return rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise many kinds for bytes that are not as they expect
        raise Unreadable(f"every image must be readable; {name} is not ({type(error).__name__}: {error}). Mend or "
                         "remove it, or set skip_unreadable to leave such images out") from error


def middle(image: Image.Image, share: float = 1.0) -> Box:
    """The largest centred square, or a square of that share of its side."""
    width, height = image.size
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def squared(image: Image.Image, size: int, box: Box) -> Image.Image:
    """What is in the box, antialiased (bilinear) to `size` pixels a side."""
    if image.size == (size, size) and box == (0, 0, size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def pixels(images: Sequence[Image.Image]) -> Tensor:
    """RGB images of one size as uint8 (N, 3, H, W)."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)).contiguous()


def decode_all(encoded: Encoded, size: int | None, *, skip: bool) -> tuple[Tensor, Tensor]:
    """Every picture in memory, decoded by a few threads.

    Args:
        encoded: The pictures.
        size: Pixels a side: the shorter side is resized to it, then the middle cut out. None keeps the pictures' own.
        skip: Leave out what cannot be decoded.

    Returns:
        Pixels, uint8 (N, 3, H, W); and the row of each in `encoded`, (N,).

    Raises:
        Mistake: If pictures without a `size` differ in theirs.
        Unreadable: If one cannot be decoded and is not to be skipped.
    """
    held, kept = torch.empty(0), list[int]()
    for images, rows in _decoded(encoded, size, skip=skip):
        if images and not kept:
            held = torch.empty(len(encoded), 3, *reversed(images[0].size), dtype=torch.uint8)
        for image, row in zip(images, rows, strict=True):
            if image.size != (held.shape[3], held.shape[2]):
                raise Mistake(f"images held in memory need one size; {encoded.name((kept or rows)[0])} has "
                              f"{held.shape[3]}x{held.shape[2]} pixels, {encoded.name(row)} "
                              f"{image.size[0]}x{image.size[1]}. Give the size to bring all of them to")
        if images:
            held[len(kept):len(kept) + len(images)] = pixels(images)
            kept += rows
    if not kept:
        raise Mistake(f"at least one image must be readable; none of {len(encoded)} is, as {encoded.name(0)}. "
                      "Check that they are images")
    return held if len(kept) == len(held) else held[:len(kept)].clone(), torch.tensor(kept)


def some_shapes(encoded: Encoded, *, skip: bool) -> list[tuple[int, int]]:
    """Width and height of some pictures, evenly spaced.

    Args:
        encoded: The pictures.
        skip: Leave out what cannot be decoded.

    Raises:
        Mistake: If none of those tried can be decoded.
        Unreadable: If one cannot be decoded and is not to be skipped.
    """
    shapes, rows = [], sorted({i * len(encoded) // LOOKED_AT for i in range(LOOKED_AT)})
    for row, picture in zip(rows, encoded.read(rows), strict=True):
        try:
            shapes.append(open_rgb(picture, encoded.name(row)).size)
        except Unreadable:
            if not skip:
                raise
    if not shapes:
        raise Mistake(f"at least some images must be readable; of {len(rows)} tried none is, as {encoded.name(0)}. "
                      "Check that they are images")
    return shapes


def readable(encoded: Encoded) -> Tensor:
    """The rows of the pictures that can be decoded; it decodes each of them to know."""
    return torch.tensor([row for _, rows in _decoded(encoded, 1, skip=True) for row in rows], dtype=torch.int64)


def _decoded(encoded: Encoded, size: int | None, *, skip: bool) -> Iterator[tuple[list[Image.Image], list[int]]]:
    """Chunks of decoded images and their rows, in order."""

    def chunk(start: int) -> tuple[list[Image.Image], list[int]]:
        images, kept = [], []
        rows = range(start, min(start + CHUNK, len(encoded)))
        for picture, row in zip(encoded.read(rows), rows, strict=True):
            try:
                image = open_rgb(picture, encoded.name(row))
            except Unreadable:
                if not skip:
                    raise
                continue
            images.append(image if size is None else squared(image, size, middle(image)))
            kept.append(row)
        return images, kept

    with ThreadPoolExecutor(THREADS) as threads:
        for group in range(0, len(encoded), THREADS * CHUNK):  # by groups, so that few images wait as Pillow's own
            yield from threads.map(chunk, range(group, min(group + THREADS * CHUNK, len(encoded)), CHUNK))
