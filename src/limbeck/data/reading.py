"""Stored maps made targets: label maps to classes, depth maps to metres."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limbeck.data.decode import Unreadable
from limbeck.errors import Mistake
from limbeck.tasks.segmentation import VOID

UNKNOWN = 254  # marks a label that is neither a class nor void
VOID_NAMES = frozenset({"void", "unlabeled", "unlabelled", "ignore", "ignored"})
MILLIMETRE = 0.001
HIGHEST = 2**16 - 1  # of 16 bits: no distance, but what a sensor that saw none writes, in 7-Scenes for instance


class Reading(Protocol):
    """How a data set's maps are read."""

    @property
    def outside(self) -> int:
        """What a stored map holds where nothing counts."""
        ...

    @property
    def width(self) -> int:
        """Bytes of a pixel in a stored map."""
        ...

    def stored(self, picture: Path | bytes, name: str) -> NDArray[Any]:
        """A map as it is held in memory, (H, W).

        Raises:
            Unreadable: If it cannot be decoded.
            Mistake: If it holds what no map holds.
        """
        ...

    def targets(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        """Stored maps as targets, (N, H, W).

        Args:
            stored: (N, H, W).
            scale: How much larger each image was made, (N,); None: not at all.
        """
        ...


@dataclass(frozen=True)
class Labels:
    """Label maps: PNG files of one class number a pixel, grey or with a palette.

    Attributes:
        table: What each of 256 numbers stands for: a class, `VOID` or `UNKNOWN`.
    """

    table: tuple[int, ...]
    outside = VOID
    width = 1

    def stored(self, picture: Path | bytes, name: str) -> NDArray[np.uint8]:
        numbers = label_map(picture, name)
        classes = np.asarray(self.table, dtype=np.uint8)[numbers]
        if (unknown := classes == UNKNOWN).any():
            known = max(c for c, to in enumerate(self.table[:VOID]) if to != UNKNOWN)
            raise Mistake(f"a label map holds classes of the data, whose numbers go to {known}, or {VOID} for void; "
                          f"{name} holds {sorted(set(numbers[unknown].tolist()))[:6]}. Mend it, name all classes in "
                          "data.class_names, or set data.void to the number of pixels that do not count")
        return classes

    def targets(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        """Classes, int64."""
        return stored.long()


@dataclass(frozen=True)
class Distances:
    """Depth maps: files of 16 bits a pixel, or of floats; 0, the highest count, and what is no number is no reading.

    Attributes:
        unit: Metres per count.
        floats: Whether they are floats.
    """

    unit: float
    floats: bool = False
    outside = 0

    @property
    def width(self) -> int:
        return 4 if self.floats else 2

    def stored(self, picture: Path | bytes, name: str) -> NDArray[np.int16] | NDArray[np.float32]:
        """Counts, the 16 bits as those of an int16; or floats."""
        depth = depth_map(picture, name)
        if (depth.dtype.kind == "f") != self.floats:
            kinds = ("whole numbers", "floats")
            raise Mistake(f"depth maps of a data set need one type; {name} holds {kinds[not self.floats]} where others "
                          f"hold {kinds[self.floats]}. Convert them all to 16-bit PNG")
        if self.floats:
            return np.nan_to_num(depth.astype(np.float32), nan=0, posinf=0, neginf=0).clip(0)
        return np.where(depth == HIGHEST, 0, depth).astype(np.uint16).view(np.int16)

    def targets(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        """Metres, float32: an image made larger shows its scene from nearer."""
        counts = stored if self.floats else stored.int() & 0xFFFF
        metres = counts.float() * self.unit
        return metres if scale is None else metres / scale[:, None, None]


def label_map(picture: Path | bytes, name: str) -> NDArray[np.uint8]:
    """The numbers in a label map, (H, W).

    Raises:
        Unreadable: If it cannot be decoded.
        Mistake: If it holds colours, or more than 256 numbers.
    """
    numbers = _decoded(picture, name)
    if numbers.ndim == 3 and (numbers[..., :3] == numbers[..., :1]).all():
        numbers = numbers[..., 0]  # grey saved as colours
    if numbers.ndim != 2 or numbers.dtype.kind == "f" or numbers.max(initial=0) > VOID:
        raise Mistake(f"a label map needs one class number from 0 to {VOID} a pixel; {name} holds {_kind(numbers)}. "
                      "Convert it to an 8-bit PNG of class numbers")
    return numbers.astype(np.uint8)


def depth_map(picture: Path | bytes, name: str) -> NDArray[Any]:
    """The counts or floats in a depth map, (H, W).

    Raises:
        Unreadable: If it cannot be decoded.
        Mistake: If it holds colours, or counts over 16 bits.
    """
    depth = _decoded(picture, name)
    if depth.ndim != 2 or (depth.dtype.kind != "f" and not 0 <= depth.min(initial=0) <= depth.max(initial=0) < 2**16):
        raise Mistake(f"a depth map needs one number a pixel, of 16 bits or a float; {name} holds {_kind(depth)}. "
                      "Convert it to a 16-bit PNG")
    return depth


def _decoded(picture: Path | bytes, name: str) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            values = np.asarray(image)
    except Exception as error:  # decoders raise many kinds for bytes that are not as they expect
        raise Unreadable(f"every map must be readable; {name} is not ({type(error).__name__}: {error}). Mend or remove "
                         "it, or set skip_unreadable to leave such images out") from error
    return values.astype(np.uint8) if values.dtype == bool else values


def _kind(values: NDArray[Any]) -> str:
    if values.ndim == 3:
        return f"{values.shape[2]} channels"
    return f"{values.dtype} from {values.min()} to {values.max()}"


def label_table(names: Sequence[str], void: int | None,
                order: Sequence[int] | None = None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the classes that count, and what each of 256 numbers in a label map stands for.

    Classes keep their order; where a number is void, or its name says so, those above it move down.

    Args:
        names: Of the numbers in `order`.
        void: A number that does not count; 255 never does.
        order: Numbers; all others are void. None: 0, 1, 2..., and others are unknown.

    Raises:
        Mistake: If there are more names than numbers, or no class is left.
    """
    numbers = range(len(names)) if order is None else order
    if len(names) >= UNKNOWN:
        raise Mistake(f"a label map holds at most {UNKNOWN - 1} classes; got {len(names)} names. Name fewer classes")
    kept = {number: name for number, name in zip(numbers, names, strict=True)
            if number not in (void, VOID) and name.lower() not in VOID_NAMES}
    if not kept:
        raise Mistake(f"segmentation needs a class that counts; of {list(names)} none does. Check data.class_names and "
                      "data.void")
    place = {number: c for c, number in enumerate(kept)}
    other = [VOID if order is not None or number in (*numbers, void, VOID) else UNKNOWN for number in range(256)]
    return tuple(kept.values()), tuple(place.get(number, other[number]) for number in range(256))


def far(depths: Tensor) -> float:
    """The distance that one valid pixel in a hundred lies beyond, up to the next half metre; 10 where none is valid."""
    known = depths[depths > 0]
    known = known[::max(1, len(known) // 1_000_000)]
    if not len(known):
        return 10.0
    return max(0.5, torch.ceil(2 * known.kthvalue(max(1, int(0.99 * len(known)))).values).item() / 2)
