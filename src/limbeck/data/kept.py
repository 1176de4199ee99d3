"""Decoded images kept for the next run: one array in limbeck's cache, memory-mapped, as long as its files are the same.

What is kept depends on the files' names, sizes and times of change, on which of them are wanted, and on the size that
they are brought to. Whoever finds nothing decodes. Sets that decode in a second are not worth a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from limbeck.data.decode import Encoded, decode_all
from limbeck.files import cache_folder

WORTH = 1.0          # seconds of decoding
ROOM = 16 * 2**30    # bytes of all that is kept; beyond it what was used longest ago goes
_LAYOUT = 1          # of the files and of how pictures are decoded; another number finds nothing of before


def decoded(encoded: Encoded, size: int | None, *, skip: bool, keep: bool = True) -> tuple[Tensor, Tensor]:
    """What `decode_all` gives, from the cache if it is there, and into the cache if it was worth it.

    Args:
        encoded: The pictures.
        size: Pixels a side, or None for their own.
        skip: Leave out what cannot be decoded.
        keep: Whether to look into the cache at all.

    Raises:
        Mistake: As `decode_all`.
    """
    mark = None
    with suppress(OSError):  # a file that went away meanwhile: whoever decodes says so
        mark = encoded.mark() if keep else None
    if mark is None:
        return decode_all(encoded, size, skip=skip)
    place = cache_folder() / "decoded" / hashed((mark, size, skip, _LAYOUT))
    found = _found(place)
    if found is not None:
        return found
    began = time.monotonic()
    pixels, kept = decode_all(encoded, size, skip=skip)
    if time.monotonic() - began >= WORTH:
        with suppress(OSError):  # a full or closed disk costs the next run its time, not this one its result
            _store(place, pixels, kept)
    return pixels, kept


def hashed(facts: object) -> str:
    """24 hexadecimal digits that stand for some facts."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()


def files_mark(paths: Iterable[str | Path]) -> str:
    """What tells files from others, and from themselves once they change: paths, sizes, times of change."""
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        about = os.stat(path)
        digest.update(repr((str(Path(path).absolute()), about.st_size, about.st_mtime_ns)).encode())
    return digest.hexdigest()


def _found(place: Path) -> tuple[Tensor, Tensor] | None:
    try:
        pixels, kept = np.load(place / "pixels.npy", mmap_mode="c"), np.load(place / "kept.npy")
        os.utime(place)
    except (OSError, ValueError, EOFError):
        return None
    whole = pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == len(kept)
    return (torch.from_numpy(pixels), torch.from_numpy(kept)) if whole else None


def _store(place: Path, pixels: Tensor, kept: Tensor) -> None:
    """Write beside and rename: others see all of it or nothing; who comes second leaves the first one's."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _make_room(place.parent, ROOM - pixels.nbytes)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        np.save(beside / "pixels.npy", pixels.numpy())
        np.save(beside / "kept.npy", kept.numpy())
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # renamed, or never whole


def _make_room(folder: Path, room: int) -> None:
    """Remove what was used longest ago until what stays fits; runs that read it keep what they have mapped."""
    old = time.time() - 24 * 3600  # who still writes is younger
    kept = sorted((one for one in folder.iterdir() if not one.name.startswith(".") or one.stat().st_mtime < old),
                  key=lambda one: one.stat().st_mtime)
    sizes = {one: sum(file.stat().st_size for file in one.iterdir()) for one in kept}
    for one in kept:
        if sum(sizes.values()) <= room:
            return
        del sizes[one]
        shutil.rmtree(one, ignore_errors=True)
