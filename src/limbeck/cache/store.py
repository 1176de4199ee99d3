"""A network's stored outputs: a folder, what they are outputs of, and the rows by the number of a view.

    FOLDER/about.json           of which network, data, views; in what form
    FOLDER/NUMBER-ID.rows, .index    see `shards`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from limbeck import ranks
from limbeck.cache.rows import Row
from limbeck.cache.shards import Shard, Writer
from limbeck.errors import Mistake
from limbeck.files import write_whole

_ABOUT = "about.json"
_SHARD = 40                # position of a row: number of its shard << 40 | its place there
_MISSING = -1
_HELD = 32 * 2**20         # bytes of new rows that wait to be written together
_WAITING = 32              # batches of them


class Cache:
    """Rows of one network's outputs by the number of a view; see `data.Repertoire`.

    What a process adds is read back, as what others add, after `refresh`. Finished shards are held in memory if they
    fit in half of what is free; others are mapped.

    Args:
        folder: Where; it is made if it is not there.
        about: What the outputs belong to; one that says something else is refused.
        row: Of what a row consists.
        views: Numbers that views can have: images of the store * views of an image.

    Raises:
        Mistake: If the folder holds outputs of something else, naming what differs.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], row: Row, views: int):
        self.folder, self.row, self.views = folder, row, views
        if ranks.rank() == 0:
            _claim(folder, about)
        ranks.wait()
        _check(folder, about)
        self._own, self._room = "", psutil.virtual_memory().available // (2 * ranks.world())
        self._shards: dict[str, Shard] = {}
        self._numbers: list[Shard] = []
        self._positions = torch.full((views,), _MISSING, dtype=torch.int64)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self.refresh()
        self._begin()
        ranks.wait()

    def _begin(self) -> None:
        self._writer = Writer(self.folder, len(self._numbers))
        self._own = self._writer.name

    # --- reading

    def find(self, ids: Tensor) -> Tensor:
        """Where the rows of these views are, (N,), int64; -1 for those that are not stored."""
        return self._positions.index_select(0, ids)

    def read(self, positions: Tensor) -> Tensor:
        """Rows, uint8 (N, size), on the CPU.

        Args:
            positions: As `find` gave them, none missing.
        """
        if len(self._numbers) == 1:
            return self._numbers[0].rows.index_select(0, positions)
        shards, places = positions >> _SHARD, positions & ((1 << _SHARD) - 1)
        rows = torch.empty(len(positions), self.row.size, dtype=torch.uint8)
        for number in shards.unique().tolist():
            mine = (shards == number).nonzero()[:, 0]
            rows[mine] = self._numbers[number].rows.index_select(0, places[mine])
        return rows

    def refresh(self) -> None:
        """See what every process stored since."""
        for index in sorted(self.folder.glob("*.index")):
            if index.name not in self._shards:
                self._shards[index.name] = Shard(index, self.row.size)
                self._numbers.append(self._shards[index.name])
        for number, shard in enumerate(self._numbers):
            first = len(shard)
            keys = shard.refresh(trusted=shard.index.stem == self._own)
            places = (number << _SHARD) + first + torch.arange(len(keys))
            new = self._positions[keys] == _MISSING
            self._positions[keys[new]] = places[new]
            if shard.sealed and not shard.held and shard.rows.nbytes <= self._room:
                shard.hold()
                self._room -= shard.rows.nbytes

    @property
    def stored(self) -> int:
        """How many views are there."""
        return int((self._positions != _MISSING).sum())

    @property
    def disk(self) -> int:
        """Bytes on disk."""
        return sum(shard.disk for shard in self._numbers)

    # --- writing

    def add(self, ids: Tensor, rows: Tensor) -> None:
        """Store views; they are written with others, at the latest in `flush`.

        Args:
            ids: Numbers of the views, (N,), on the CPU.
            rows: uint8 (N, size), on any device; nothing waits for it here.
        """
        self._waiting.append((ids, rows))
        held = sum(len(rows) for _, rows in self._waiting) * self.row.size
        if len(self._waiting) >= _WAITING or held >= _HELD:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            ids, rows = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            self._writer.add(ids, rows.cpu())

    def flush(self) -> None:
        """Write what waits, and wait until it is safely on disk."""
        self._write()
        self._writer.sync()

    def close(self) -> None:
        """Write what waits, and seal this process's shard; it is seen after `refresh`. What comes later has another."""
        self.flush()
        self._writer.close()
        self._begin()


def described(folder: Path) -> dict[str, Any] | None:
    """What a cache's folder says of itself; None where there is none yet.

    Raises:
        Mistake: If its record is damaged.
    """
    path = folder / _ABOUT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError:
        raise Mistake(f"{path} cannot be read as JSON. Delete {folder}, and it is filled anew.") from None
    return found


def _claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Make a folder that holds nothing yet the cache of something."""
    if not (folder / _ABOUT).is_file() and not any(folder.glob("*.index")):
        write_whole(folder / _ABOUT, json.dumps(about, indent=2) + "\n")


def _check(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse a cache of something else; every rank looks, so that all of them stop."""
    there = described(folder)
    if there is None:
        raise Mistake(f"{folder} holds rows, and no {_ABOUT} says of what. Choose another --cache, or delete it.")
    differing = _differences(there, json.loads(json.dumps(about)))
    if differing:
        raise Mistake(f"{folder} holds outputs of something else: {'; '.join(differing)}. Give the same again, or "
                      f"choose another --cache.")


def _differences(there: Any, here: Any, place: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys([*there, *here])
        return [d for key in keys for d in _differences(there.get(key), here.get(key), f"{place} {key}".lstrip())]
    return [] if there == here else [f"its {place} is {there}, and {here} is given"]
