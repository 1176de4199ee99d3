"""A folder of images by class, split into train and test or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from limbeck.data.kept import files_mark
from limbeck.data.sources.source import SCORED, Part, Source, choose_scored
from limbeck.errors import Mistake, nearest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"})


class Files:
    """Image files.

    Their paths are one array of bytes: a list of a million objects would be copied into every worker, object by object,
    as the workers count references to them.
    """

    def __init__(self, paths: Iterable[Path | str]):
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
        chosen = Files(())
        chosen._paths = self._paths[list(rows)]
        return chosen

    def mark(self) -> str:
        """Of the files, in their order."""
        return files_mark(os.fsdecode(path) for path in self._paths)


def open_folder(folder: Path) -> Source:
    """FOLDER/train/CLASS/* and FOLDER/test/CLASS/* (or val, validation, valid), or only FOLDER/CLASS/*.

    Classes are sorted by name. Images may lie deeper within their class; those beside class folders are not read.
    Where there is no class folder at all, images are unlabelled. A split to be scored may also have its images
    together and their classes in a list: see `listed`; so Tiny-ImageNet and ImageNet are read as they are published.

    Raises:
        Mistake: If there are no images, a class has none to train on, or the test split has a class of its own.
    """
    there = [name for name in ("train", *SCORED) if (folder / name).is_dir()]
    if there and "train" not in there:
        raise Mistake(f"a folder with a split needs one named 'train'; {folder} has {there} only. Name the split that "
                      "is trained on 'train', or give the folder that holds the classes")
    splits = {name: _list(folder / name) for name in there} if there else {"train": _list(folder)}
    train = splits["train"]
    splits |= {name: _together(folder, name, split, train.classes) for name, split in splits.items() if name != "train"}
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
    paths: list[str]
    labels: list[str]

    def part(self, classes: Sequence[str]) -> Part:
        place = {name: c for c, name in enumerate(classes)}
        targets = torch.tensor([place[name] for name in self.labels]) if self.classes else None
        return Part(Files(self.paths), targets)


def _list(folder: Path) -> _Split:
    with os.scandir(folder) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not below:
        return _Split((), _images(folder), [])
    by_class = {name: _images(folder / name) for name in below}
    return _Split(tuple(below), [path for name in below for path in by_class[name]],
                  [name for name in below for _ in by_class[name]])


def _images(folder: Path) -> list[str]:
    """Images anywhere below a folder, sorted by path; nothing hidden."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(place, name) for name in names
                  if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")]
    return sorted(found, key=lambda path: path.split(os.sep))  # folder by folder, as paths compare


def _together(folder: Path, name: str, split: _Split, classes: Sequence[str]) -> _Split:
    """A split whose images lie together, labelled by its list where there is one; any other split as it is."""
    if not classes or set(split.classes) & set(classes) or len(split.classes) > 1:
        return split
    found = listed(folder, name, split.paths)
    if found is None:
        return split if split.classes not in ((), ("images",)) else _Split((), split.paths, [])
    return _Split(tuple(sorted(set(found))), split.paths, found)


def listed(folder: Path, name: str, paths: Sequence[str]) -> list[str] | None:
    """The class of each image of a split, as a list says: lines of image and class, and perhaps more.

    A list is a .txt, .csv or .tsv file in the split's folder (Tiny-ImageNet's `val/val_annotations.txt`), or one beside
    it with the split's name in its own (ImageNet's `LOC_val_solution.csv`). Images are named with or without suffix.

    Args:
        folder: Of the whole data set.
        name: Of the split.
        paths: Its images.

    Returns:
        Their classes; None where there is no list that names any of them.

    Raises:
        Mistake: If a list names some of the images only.
    """
    files = [*(folder / name).iterdir(), *(file for file in folder.iterdir() if name in file.stem.split("_"))]
    for file in sorted(file for file in files if file.suffix in (".txt", ".csv", ".tsv")):
        words = (line.replace(",", " ").split() for line in file.read_text(errors="replace").splitlines())
        known = {os.path.splitext(line[0])[0]: line[1] for line in words if len(line) > 1}
        stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
        missing = [stem for stem in stems if stem not in known]
        if len(missing) == len(stems):
            continue
        if missing:
            raise Mistake(f"a list of classes needs every image of its split; {file} lacks {len(missing)} of "
                          f"{len(stems)} images of '{name}', as {missing[0]}. Complete it, or take these images away")
        return [known[stem] for stem in stems]
    return None
