"""Images of one size in a few files of bounded size, lossless: to carry a data set where little can be carried.

A folder holds `part-1-of-2.safetensors` and so on. Each part has, for each split of which some images fell into it,
`SPLIT.pictures`, the WebP files of its images one after the other; `SPLIT.ends`, where each ends; and `SPLIT.targets`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limbeck.data.decode import THREADS
from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake
from limbeck.files import write_whole

_FORMAT = "limbeck-packed-1"
_SPLITS = ("train", "test")
_EFFORT = 4  # of WebP; 6 takes thirty times as long and gains nothing on 32x32 photographs


@dataclass(frozen=True)
class Packed:
    """Pictures, one after the other in one array.

    Attributes:
        pictures: Contents of all files, uint8.
        ends: Where each ends, (N,), int64; it begins where the one before ends.
        split: The split's name, for messages.
        rows: Which of them.
    """

    pictures: NDArray[np.uint8]
    ends: NDArray[np.int64]
    split: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Sequence[int]) -> list[Path | bytes]:
        """Contents of WebP files."""
        chosen = self.rows[list(rows)].tolist()
        return [self.pictures[self.ends[row - 1] if row else 0:self.ends[row]].tobytes() for row in chosen]

    def name(self, row: int) -> str:
        """Its place."""
        return f"image {self.rows[row]} of split '{self.split}'"

    def select(self, rows: Sequence[int]) -> Packed:
        """Only these pictures."""
        return Packed(self.pictures, self.ends, self.split, self.rows[list(rows)])

    def mark(self) -> str:
        """Of their contents."""
        digest = hashlib.blake2b(digest_size=12)
        for array in (self.pictures, self.ends, self.rows):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def pack(source: Source, folder: Path, most: int) -> list[Path]:
    """Write a data set that is in memory.

    Args:
        source: Its images as uint8 tensors.
        folder: Takes the parts; created where there is none.
        most: Bytes of pictures and targets in a part, at most; the file's header, a few kilobytes, comes on top.

    Returns:
        The files.

    Raises:
        Mistake: If the folder holds something already.
    """
    from safetensors.numpy import save

    if folder.is_dir() and any(folder.iterdir()):
        raise Mistake(f"packing needs a new or empty folder; {folder} holds something. Empty it, or choose another")
    shares = _shares(source, most)
    header = {"format": _FORMAT, "name": source.name, "classes": source.classes, "scored": source.scored,
              "mirrored": source.mirrored, "parts": len(shares)}
    files = []
    for number, share in enumerate(shares, 1):
        files.append(folder / f"part-{number}-of-{len(shares)}.safetensors")
        write_whole(files[-1], save(share, {"limbeck": json.dumps({**header, "part": number})}))
    return files


def open_packed(place: str) -> Source:
    """What `pack` wrote, pixel for pixel.

    Args:
        place: The folder with all its parts.

    Raises:
        Mistake: If a part is missing, damaged, or of another packing.
    """
    folder = Path(place).expanduser()
    files = sorted(folder.glob("part-*-of-*.safetensors"))
    if not files:
        raise Mistake(f"packed: needs a folder of parts as benchmarks/pack.py writes them; {folder} has no "
                      "part-1-of-N.safetensors. Give that folder, or pack the data first")
    found = {header.pop("part"): (header, arrays) for header, arrays in map(_read, files)}
    headers = [header for header, _ in found.values()]
    other = [header["name"] for header in headers if header != headers[0]]
    missing = sorted(set(range(1, headers[0]["parts"] + 1)) - set(found))
    if other or missing:
        wrong = (f"has some of '{headers[0]['name']}' and of '{other[0]}', packed apart" if other else
                 f"lacks part {missing} of {headers[0]['parts']}")
        raise Mistake(f"packed: needs all parts of one packing in a folder; {folder} {wrong}. Put all of them "
                      "there, and nothing else")
    header = headers[0]
    train, test = (_joined([found[number][1] for number in sorted(found)], name) for name in _SPLITS)
    assert train is not None  # `pack` begins with it
    return Source(header["name"], tuple(header["classes"]), train, test, header["scored"], header["mirrored"])


def _shares(source: Source, most: int) -> list[dict[str, NDArray[Any]]]:
    """The arrays of each part: images in order, a new part where the next would not fit."""
    shares: list[dict[str, NDArray[Any]]] = [{}]
    room = most
    for name, part in zip(_SPLITS, (source.train, source.test), strict=True):
        if part is None:
            continue
        assert isinstance(part.images, Tensor)
        pictures, first = _encoded(part.images), 0
        sizes = [len(picture) + 16 for picture in pictures]  # two int64 beside each picture
        for row, size in enumerate(sizes):
            if size > room and (row > first or shares[-1]):
                _put(shares[-1], name, pictures, part.targets, slice(first, row))
                shares.append({})
                first, room = row, most
            room -= size
        _put(shares[-1], name, pictures, part.targets, slice(first, None))
    return shares


def _put(share: dict[str, NDArray[Any]], name: str, pictures: Sequence[bytes], targets: Tensor | None,
         rows: slice) -> None:
    if chosen := pictures[rows]:
        share[f"{name}.pictures"] = np.frombuffer(b"".join(chosen), np.uint8)
        share[f"{name}.ends"] = np.cumsum([len(picture) for picture in chosen], dtype=np.int64)
        if targets is not None:
            share[f"{name}.targets"] = targets[rows].numpy()


def _encoded(images: Tensor) -> list[bytes]:
    """Images, uint8 (N, 3, H, W), as lossless WebP files."""

    def encode(image: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "WEBP", lossless=True, method=_EFFORT, quality=100)
        return stream.getvalue()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(encode, images.permute(0, 2, 3, 1).contiguous().numpy()))


def _read(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A part's header and arrays."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            header = json.loads((opened.metadata() or {}).get("limbeck", "{}"))
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError, ValueError) as error:
        raise Mistake(f"a part must be whole; {file} is damaged ({error}). Copy it or pack the data again") from None
    if header.get("format") != _FORMAT:
        raise Mistake(f"a part must be one of benchmarks/pack.py's, of format {_FORMAT}; {file} has the format "
                      f"{header.get('format')}. Pack the data again")
    return header, arrays


def _joined(shares: Sequence[dict[str, NDArray[Any]]], name: str) -> Part | None:
    """A split from its shares in all parts."""
    own = [{key.partition(".")[2]: array for key, array in share.items() if key.startswith(f"{name}.")}
           for share in shares if f"{name}.ends" in share]
    if not own:
        return None
    before = np.cumsum([0, *(len(share["pictures"]) for share in own[:-1])])
    ends = np.concatenate([share["ends"] + start for share, start in zip(own, before, strict=True)])
    pictures = Packed(np.concatenate([share["pictures"] for share in own]), ends, name, np.arange(len(ends)))
    targets = [share["targets"] for share in own if "targets" in share]
    return Part(pictures, torch.from_numpy(np.concatenate(targets)) if targets else None)
