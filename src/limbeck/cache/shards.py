"""Rows on disk: shards that are only appended to, each by one process, and read by all.

A shard is two files. `NAME.rows` is rows of one size, one after the other, so that it can be looked at as a matrix.
`NAME.index` says which keys they have: a record for each block of rows that was written at once,
    magic, number of rows n, checksum of keys and rows (CRC-32), n keys (int64),
written after the block's rows. A block counts if its record is whole and agrees with the rows: whoever is killed while
writing leaves a tail that nobody reads. A shard that was closed ends with a seal, put there once its rows were safely
on disk; its blocks are not checked again.
"""

from __future__ import annotations

import os
import struct
import uuid
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.files import unwritable

_RECORD = struct.Struct("<4sII")
_BLOCK, _SEAL = b"LBKr", b"LBKs"


class Writer:
    """Appends to a shard of its own, which is made with its first block.

    Args:
        folder: Of the cache.
        number: How many shards there were; shards are read in the order of their names.
    """

    def __init__(self, folder: Path, number: int):
        self.name = f"{number:05d}-{uuid.uuid4().hex[:12]}"
        self._paths = folder / f"{self.name}.rows", folder / f"{self.name}.index"
        self._files: tuple[BinaryIO, BinaryIO] | None = None

    def add(self, keys: Tensor, rows: Tensor) -> None:
        """Write a block: it is there whole, or not at all.

        Args:
            keys: int64 (n,).
            rows: uint8 (n, size), on the CPU.

        Raises:
            Mistake: If the disk is full or the folder cannot be written.
        """
        if not len(keys):
            return
        key_bytes, row_bytes = keys.numpy().tobytes(), rows.numpy().tobytes()
        try:
            files = self._files or self._open()
            checksum = zlib.crc32(row_bytes, zlib.crc32(key_bytes))
            _write(files[0], row_bytes)
            _write(files[1], _RECORD.pack(_BLOCK, len(keys), checksum) + key_bytes)
        except OSError as error:
            self._release()  # what follows half a block would not lie where its record says: never sealed
            raise unwritable(self._paths[0], error) from None

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        files = self._paths[0].open("wb", buffering=0), self._paths[1].open("wb", buffering=0)
        for file in files:
            weakref.finalize(self, file.close)
        self._files = files
        return files

    def _release(self) -> None:
        for file in self._files or ():
            file.close()
        self._files = None

    def sync(self) -> None:
        """Wait until everything is safely on disk."""
        for file in self._files or ():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Seal the shard; it is not written again."""
        if self._files is None:
            return
        self.sync()
        _write(self._files[1], _RECORD.pack(_SEAL, 0, 0))
        self.sync()
        self._release()


def _write(file: BinaryIO, content: bytes | memoryview) -> None:
    """All of it: a raw file may take less at once."""
    left = memoryview(content)
    while left:
        left = left[file.write(left):]


class Shard:
    """What is whole of a shard, as far as it was last looked at.

    Args:
        index: Its `.index` file.
        size: Bytes of a row.
    """

    def __init__(self, index: Path, size: int):
        self.index, self.size = index, size
        self.rows = torch.empty(0, size, dtype=torch.uint8)
        self.sealed, self.held = False, False
        self._read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def refresh(self, *, trusted: bool = False) -> Tensor:
        """Look at what was added since; returns the keys of the new rows, (n,).

        Args:
            trusted: Skip the checksums, for a shard of this process.
        """
        with self.index.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        if not content:
            return torch.empty(0, dtype=torch.int64)
        mapped = self._mapped()
        self.sealed, self.held = content[-_RECORD.size:] == _RECORD.pack(_SEAL, 0, 0), False
        start = len(self.rows)
        keys = [np.empty(0, np.int64)]
        for block, checksum, used in _blocks(content):
            end = start + len(block)
            if end > len(mapped) or not (trusted or self.sealed or checksum == _sum(block, mapped[start:end])):
                break
            keys.append(block)
            start, self._read = end, self._read + used
        else:
            self._read += _RECORD.size * self.sealed
        self.rows = torch.from_numpy(mapped[:start])
        return torch.from_numpy(np.concatenate(keys))

    def hold(self) -> None:
        """Read the rows into memory: they are asked for in no order, which a disk answers a hundred times as slowly."""
        self.rows, self.held = self.rows.clone(), True

    def _mapped(self) -> NDArray[np.uint8]:
        """All whole rows of the file. Copy-on-write: nobody writes here, and torch wants what could be written."""
        path = self.index.with_suffix(".rows")
        count = path.stat().st_size // self.size
        if not count:
            return np.empty((0, self.size), np.uint8)
        return np.memmap(path, np.uint8, mode="c", shape=(count, self.size))

    @property
    def disk(self) -> int:
        """Bytes on disk."""
        return self.index.stat().st_size + self.index.with_suffix(".rows").stat().st_size


def _blocks(content: bytes) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Keys, checksum and bytes of each record that is whole."""
    place = 0
    while len(content) - place >= _RECORD.size:
        magic, count, checksum = _RECORD.unpack_from(content, place)
        used = _RECORD.size + 8 * count
        if magic != _BLOCK or place + used > len(content):
            return
        yield np.frombuffer(content, np.int64, count, place + _RECORD.size).copy(), checksum, used
        place += used


def _sum(keys: NDArray[np.int64], rows: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(rows).data, zlib.crc32(keys.data))
