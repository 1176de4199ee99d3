"""Rows on disk: whoever is killed while writing, whatever is read is what was written."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from limbeck.cache.shards import Shard, Writer
from limbeck.errors import Mistake

SIZE = 8


def rows(keys: Tensor) -> Tensor:
    """Bytes that only these keys have."""
    return (keys[:, None] * 31 + torch.arange(SIZE)).to(torch.uint8)


def write(folder: Path, *blocks: range, close: bool = False) -> Path:
    writer = Writer(folder, 0)
    for block in blocks:
        writer.add(torch.tensor(block), rows(torch.tensor(block)))
    if close:
        writer.close()
    return folder / f"{writer.name}.index"


def read(index: Path) -> Tensor:
    """Keys of a shard; its rows are checked against them."""
    shard = Shard(index, SIZE)
    keys = shard.refresh()
    assert torch.equal(shard.rows, rows(keys))
    assert len(shard) == len(keys)
    return keys


def test_what_was_written_is_read_and_what_comes_later_too(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 3)
    writer.add(torch.tensor([5, 2]), rows(torch.tensor([5, 2])))
    shard = Shard(next(tmp_path.glob("00003-*.index")), SIZE)
    assert shard.refresh().tolist() == [5, 2]
    assert shard.refresh().tolist() == []
    writer.add(torch.tensor([9]), rows(torch.tensor([9])))
    assert shard.refresh().tolist() == [9]
    writer.close()
    assert shard.refresh().tolist() == []
    assert torch.equal(shard.rows, rows(torch.tensor([5, 2, 9])))
    assert shard.disk == 3 * SIZE + 3 * 8 + 3 * 12


def test_no_shard_is_made_before_there_is_a_row(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0)
    writer.add(torch.empty(0, dtype=torch.int64), torch.empty(0, SIZE, dtype=torch.uint8))
    writer.sync()
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".index", ".rows"])
def test_cut_anywhere_only_whole_blocks_are_read(tmp_path: Path, suffix: str) -> None:
    index = write(tmp_path, range(3), range(3, 5), range(5, 9))
    cut = index.with_suffix(suffix)
    content, before = cut.read_bytes(), [0, 3, 5, 9]
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        keys = read(index).tolist()
        assert len(keys) in before
        assert keys == list(range(len(keys)))
    assert len(keys) == 9


@pytest.mark.parametrize("suffix", [".index", ".rows"])
def test_a_changed_byte_of_an_open_shard_ends_it_there(tmp_path: Path, suffix: str) -> None:
    index = write(tmp_path, range(3), range(3, 6))
    changed = index.with_suffix(suffix)
    content = bytearray(changed.read_bytes())
    content[len(content) // 2 + 14] ^= 1
    changed.write_bytes(content)
    assert read(index).tolist() == [0, 1, 2]


def test_a_shard_that_failed_is_never_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, 0)
    writer.add(torch.tensor([1]), rows(torch.tensor([1])))

    def full(file: object, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("limbeck.cache.shards._write", full)
    with pytest.raises(Mistake, match=r"the disk is full\. What was there before is unharmed"):
        writer.add(torch.tensor([2]), rows(torch.tensor([2])))
    monkeypatch.undo()
    writer.close()
    (index,) = tmp_path.glob("*.index")
    assert not index.read_bytes().endswith(b"LBKs" + bytes(8))
    assert read(index).tolist() == [1]


_WRITES = """
import sys, torch
from pathlib import Path
from limbeck.cache.shards import Writer
writer, first = Writer(Path(sys.argv[1]), 0), 0
while True:
    keys = torch.arange(first, first + 1000)
    writer.add(keys, (keys[:, None] * 31 + torch.arange(8)).to(torch.uint8))
    first += 1000
    print(first, flush=True)
"""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (index,) = tmp_path.glob("*.index")
    keys = read(index)
    assert len(keys) >= 20000
    assert torch.equal(keys, torch.arange(len(keys)))
