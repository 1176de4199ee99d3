"""CIFAR's files: read as published, old and new; anything that would run code is refused."""

import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.config import DataSettings
from limbeck.data import open_data
from limbeck.data.sources.cifar import open_cifar
from limbeck.errors import Mistake

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def rows(n: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def write(folder: Path, *, classes: int = 2, images: int = 4) -> Path:
    """CIFAR-10 with few classes and images."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate([*TRAIN, "test_batch"]):
        batch = {b"data": rows(images, seed), b"labels": [i % classes for i in range(images)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"plane", b"car", b"bird"][:classes]}))
    return folder


def as_python_2_wrote(data: np.ndarray[Any, Any], labels: list[int]) -> bytes:
    """Opcode by opcode what is in the published files: byte strings as str, a dtype made with numbers for truth."""

    def text(word: bytes) -> bytes:
        return b"U" + bytes([len(word)]) + word

    shape = b"".join(b"J" + struct.pack("<i", side) for side in data.shape) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + (
        b"J\xff\xff\xff\xff" * 2) + b"K\x00tb"
    contents = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01" + shape
             + dtype + b"\x89" + contents + b"tb")
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_cifar10_as_published(tmp_path: Path, inside: str) -> None:
    write(tmp_path / inside)
    data = open_data(DataSettings(source=f"cifar10:{tmp_path}"))
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("cifar10", ("plane", "car"), 20, 4)
    assert data.notes == ()
    assert data.image_size == (32, 32)
    assert data.augmentation.kind == "crop-flip"
    assert data.augmentation.padding == 4
    expected = rows(4, 1)[2].reshape(3, 32, 32)
    assert np.array_equal(data.train.store.sample(torch.tensor([6]))[0], expected)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1, 0, 1]


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("test", 1)):
        content = {b"data": rows(4, seed), b"fine_labels": [1, 0, 1, 0], b"coarse_labels": [0] * 4}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple", b"whale"]}, protocol=2))
    source = open_cifar("cifar100", str(tmp_path))
    assert source.classes == ("apple", "whale")
    assert source.train.targets is not None
    assert source.train.targets.tolist() == [1, 0, 1, 0]


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "test_batch").write_bytes(as_python_2_wrote(rows(3, 9), [1, 0, 1]))
    source = open_cifar("cifar10", str(tmp_path))
    assert source.test is not None
    assert source.test.targets is not None
    assert source.test.targets.tolist() == [1, 0, 1]
    assert isinstance(source.test.images, torch.Tensor)
    assert np.array_equal(source.test.images.flatten(1), rows(3, 9))


@pytest.mark.parametrize("protocol", range(0, 6))
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int) -> None:
    write(tmp_path)
    witness = tmp_path / "was run"
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(witness)}, protocol=protocol))
    with pytest.raises(Mistake, match=r"holds arrays and names only; .*data_batch_3 asks to run \w+\.system, which is "
                                      "refused. Do not trust this file"):
        open_cifar("cifar10", str(tmp_path))
    assert not witness.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__", "open"])
def test_builtins_are_refused_too(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / "batches.meta").write_bytes(b"\x80\x02cbuiltins\n" + name.encode() + b"\n.")
    with pytest.raises(Mistake, match=rf"asks to run builtins\.{name}"):
        open_cifar("cifar10", str(tmp_path))


def test_missing_files_are_listed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(Mistake, match=re.escape(f"{tmp_path} lacks ['data_batch_4']. Give the folder into which "
                                                "cifar-10-batches-py was unpacked")):
        open_cifar("cifar10", str(tmp_path))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "data_batch_1").write_bytes((tmp_path / "data_batch_1").read_bytes()[:100])
    with pytest.raises(Mistake, match=r"must be a pickle; .*data_batch_1 is not \(.*Unpack it again"):
        open_cifar("cifar10", str(tmp_path))


def test_files_of_the_other_cifar_are_told(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"fine_label_names": []}))
    with pytest.raises(Mistake, match=r"an entry b'label_names'; .*meta has .*fine_label_names.*the other CIFAR"):
        open_cifar("cifar10", str(tmp_path))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps([1]))
    with pytest.raises(Mistake, match=r"batches\.meta has list"):
        open_cifar("cifar10", str(tmp_path))


@pytest.mark.parametrize(("data", "labels"), [(rows(2, 0)[:, :9], [0, 1]), (rows(2, 0), [0]), (rows(2, 0) / 2, [0, 1]),
                                              (rows(2, 0), [0, 2])])
def test_wrong_contents_are_told(tmp_path: Path, data: np.ndarray[Any, Any], labels: list[int]) -> None:
    write(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": data, b"labels": labels}))
    with pytest.raises(Mistake, match=r"needs uint8 data \(N, 3072\) and N labels below 2; .*test_batch has"):
        open_cifar("cifar10", str(tmp_path))
