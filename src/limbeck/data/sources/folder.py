"""A folder of images by class, split into train and test or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from limbeck.data.sources.source import SCORED, Part, Source, choose_scored
from limbeck.errors import Mistake, nearest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"})


class Files:
    """Image files.

    Their paths are one array of bytes: a list of a million objects would be copied into every worker, object by object,
    as the workers count references to them.
    """

    def __init__(self, paths: Iterable[Path]):
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, row: int) -> Path:
        """Where an image lies."""
        return Path(os.fsdecode(self._paths[row]))

    def read(self, rows: Sequence[int]) -> list[Path | bytes]:
        """The paths; whoever decodes opens them."""
        return [self.path(row) for row in rows]

    def name(self, row: int) -> str:
        """Its path."""
        return str(self.path(row))

    def select(self, rows: Sequence[int]) -> Files:
        """Only these files."""
        return Files(map(self.path, rows))


def open_folder(folder: Path) -> Source:
    """FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (or val, validation, valid), or only FOLDER/CLASS/*.

    Classes are sorted by name. Images may lie deeper within their class; those beside class folders are not read.
    Where there is no class folder at all, images are unlabelled.

    Raises:
        Mistake: If there are no images, a class has none to train on, or the test split has a class of its own.
    """
    there = [name for name in ("train", *SCORED) if (folder / name).is_dir()]
    if there and "train" not in there:
        raise Mistake(f"a folder with a split needs one named 'train'; {folder} has {there} only. Name the split that "
                      "is trained on 'train', or give the folder that holds the classes")
    splits = {name: _list(folder / name) for name in there} if there else {"train": _list(folder)}
    train = splits["train"]
    empty = [name for name in train.classes if name not in train.labels]
    if empty or not train.paths:
        raise Mistake(f"training needs images of every class ({', '.join(sorted(SUFFIXES))}); {folder} has none"
                      f"{f' of {empty}' if empty else ''}. Put images there, or remove the folders without")
    test = choose_scored({name: bool(split.classes) for name, split in splits.items()})
    classes = train.classes or (splits[test].classes if test else ())
    other = sorted(set(splits[test].classes) - set(classes)) if test else []
    if other:
        raise Mistake(f"classes of {test} must be among those of train; {folder / str(test)} also has {other[:6]}, "
                      f"{nearest(other[0], classes)}. Name the folders alike")
    return Source(str(folder), classes, train.part(classes), splits[test].part(classes) if test else None, test or "")


@dataclass(frozen=True)
class _Split:
    """What lies in the folder of one split: classes, files, and the class of each file where there are classes."""

    classes: tuple[str, ...]
    paths: list[Path]
    labels: list[str]

    def part(self, classes: Sequence[str]) -> Part:
        place = {name: c for c, name in enumerate(classes)}
        targets = torch.tensor([place[name] for name in self.labels]) if self.classes else None
        return Part(Files(self.paths), targets)


def _list(folder: Path) -> _Split:
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not classes:
        return _Split((), _images(folder.iterdir()), [])
    by_class = {name: _images((folder / name).rglob("*")) for name in classes}
    return _Split(classes, [path for name in classes for path in by_class[name]],
                  [name for name in classes for _ in by_class[name]])


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
