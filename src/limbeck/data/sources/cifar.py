"""CIFAR-10 and CIFAR-100 in the layout they are published in for Python: pickles that are read with care."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake


@dataclass(frozen=True)
class Layout:
    """Names of files and keys."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    names_key: bytes
    labels_key: bytes


LAYOUTS = {
    "cifar10": Layout("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",),
                      "batches.meta", b"label_names", b"labels"),
    "cifar100": Layout("cifar-100-python", ("train",), ("test",), "meta", b"fine_label_names", b"fine_labels"),
}


def open_cifar(kind: str, place: str) -> Source:
    """CIFAR in a folder, or in the published folder within it.

    Args:
        kind: `cifar10` or `cifar100` (its 100 fine classes).
        place: The folder.

    Raises:
        Mistake: If a file is missing, refused or not as published.
    """
    layout = LAYOUTS[kind]
    folder = Path(place).expanduser()
    folder = folder / layout.folder if (folder / layout.folder).is_dir() else folder
    missing = [name for name in (*layout.train, *layout.test, layout.names) if not (folder / name).is_file()]
    if missing:
        raise Mistake(f"{kind} needs the published python files {[*layout.train, *layout.test, layout.names]}; "
                      f"{folder} lacks {missing}. Give the folder into which {layout.folder} was unpacked")
    names = _entry(folder / layout.names, layout.names_key)
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    train, test = (_part(folder, files, layout.labels_key, len(classes)) for files in (layout.train, layout.test))
    return Source(kind, classes, train, test, "test")


def _part(folder: Path, files: Sequence[str], labels_key: bytes, classes: int) -> Part:
    images, targets = [], []
    for file in files:
        data, labels = (np.asarray(_entry(folder / file, key)) for key in (b"data", labels_key))
        if data.dtype != np.uint8 or data.shape != (len(labels), 3 * 32 * 32) or not set(labels) <= set(range(classes)):
            raise Mistake(f"a CIFAR file needs uint8 data (N, 3072) and N labels below {classes}; {folder / file} has "
                          f"{data.dtype} {data.shape} and {len(labels)} labels to {max(labels)}. Unpack it again")
        images.append(torch.from_numpy(data.reshape(-1, 3, 32, 32).copy()))
        targets.append(torch.from_numpy(labels.astype(np.int64)))
    return Part(torch.cat(images), torch.cat(targets))


def _entry(file: Path, key: bytes) -> Any:
    """What a pickled dictionary has under a key."""
    with file.open("rb") as stream:
        try:
            content = _Restricted(stream).load()
        except Mistake:
            raise
        except Exception as error:  # a damaged pickle raises almost anything
            raise Mistake(f"a CIFAR file must be a pickle; {file} is not ({type(error).__name__}: {error}). "
                          "Unpack it again") from error
    if not isinstance(content, dict) or key not in content:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise Mistake(f"a CIFAR file of this kind has an entry {key!r}; {file} has {found}. "
                      "Is it of the other CIFAR?")
    return content[key]


class _Restricted(pickle.Unpickler):
    """Reads arrays and plain values, and calls nothing else: a pickle can name any function there is."""

    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="bytes")
        self.stream = stream

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("numpy._core", "numpy.core"), name:
            case "numpy.core.multiarray", "_reconstruct":
                return _reconstruct
            case "numpy.core.numeric", "_frombuffer":
                return _frombuffer
            case "numpy", "ndarray":
                return object  # only ever an argument of the first
            case "numpy", "dtype":
                return _dtype
            case "_codecs", "encode":
                return _encode
        raise Mistake(f"a CIFAR file holds arrays and names only; {self.stream.name} asks to run {module}.{name}, "
                      "which is refused. Do not trust this file: get it again from where it is published")


# Stand-ins for what pickled arrays are made with, each doing the one thing that is asked of it there.

def _reconstruct(_kind: type, _shape: tuple[int, ...], _type: bytes) -> NDArray[Any]:
    return np.ndarray((0,), np.uint8)  # its shape, type and contents follow


def _frombuffer(buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: bytes | str) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order in ("F", b"F") else "C")


def _dtype(name: bytes | str, align: int = 0, copy: int = 0) -> np.dtype[Any]:
    """CIFAR's own files give numbers where numpy now warns unless it gets truth values."""
    return np.dtype(name.decode() if isinstance(name, bytes) else name, align=bool(align), copy=bool(copy))


def _encode(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")
