"""Rows by number, whichever shards they lie in."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from limbeck.cache.rows import Row
from limbeck.cache.store import Cache

ROW = Row({"logits": (2,)}, "float32")


def opened(folder: Path) -> Cache:
    return Cache(folder, {"of": "tests"}, ROW, 12)


def rows(ids: torch.Tensor) -> torch.Tensor:
    return ROW.encode({"logits": torch.stack([ids, -ids], 1)})


def store(cache: Cache, *ids: int) -> None:
    cache.add(torch.tensor(ids), rows(torch.tensor(ids)))


def read(cache: Cache, *ids: int) -> list[int]:
    found = cache.read(cache.find(torch.tensor(ids)))
    return ROW.decode(found)["logits"][:, 0].int().tolist()


def test_what_is_added_is_found_after_it_is_written_and_looked_for(tmp_path: Path) -> None:
    cache, other = opened(tmp_path), opened(tmp_path)
    store(cache, 7, 3)
    cache.refresh()
    assert cache.find(torch.tensor([7, 3, 0])).tolist() == [-1, -1, -1]
    cache.flush()
    cache.refresh()
    assert read(cache, 3, 7, 3) == [3, 7, 3]
    assert other.find(torch.tensor([7])).tolist() == [-1]
    other.refresh()
    assert read(other, 3, 7) == [3, 7]
    assert (other.stored, cache.stored) == (2, 2)


def test_rows_of_several_shards_come_in_the_order_that_is_asked(tmp_path: Path) -> None:
    for ids in ((1, 2), (8, 3, 2), (5,)):
        cache = opened(tmp_path)
        store(cache, *ids)
        cache.close()
    cache.refresh()
    assert read(cache, 5, 2, 8, 1, 3, 2) == [5, 2, 8, 1, 3, 2]
    assert cache.stored == 5
    assert len(list(tmp_path.glob("*.index"))) == 3


def test_many_small_batches_are_written_together(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    for i in range(12):
        store(cache, i)
    assert not list(tmp_path.glob("*.index"))
    for _ in range(3):
        for i in range(12):
            store(cache, i)
    assert len(list(tmp_path.glob("*.index"))) == 1


@pytest.mark.parametrize("room", [0, 10**9])
def test_finished_shards_are_held_in_memory_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           room: int) -> None:
    cache = opened(tmp_path)
    store(cache, 1, 2)
    cache.close()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": room}))
    again = opened(tmp_path)
    (shard,) = again._numbers
    assert shard.held is (room > 0)
    before = shard.rows.data_ptr()
    again.refresh()
    assert shard.rows.data_ptr() == before
    assert read(again, 2, 1) == [2, 1]


def test_an_open_shard_is_looked_at_again_and_a_later_block_added(tmp_path: Path) -> None:
    writing, reading = opened(tmp_path), opened(tmp_path)
    for ids in ((1,), (2, 3), (4,)):
        store(writing, *ids)
        writing.flush()
        reading.refresh()
        assert read(reading, *ids) == list(ids)
    writing.close()
    reading.refresh()
    assert read(reading, 4, 1) == [4, 1]
    store(writing, 5)
    writing.close()
    reading.refresh()
    assert read(reading, 5, 4) == [5, 4]
