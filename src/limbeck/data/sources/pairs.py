"""Folders of images and of their maps, by the same names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from limbeck.data.sources.folder import SUFFIXES, Files
from limbeck.data.sources.source import SCORED, Part, Source, TaskName, choose_scored, named_classes
from limbeck.errors import Mistake

IMAGES = ("images", "image", "rgb")
MAPS: dict[TaskName, tuple[str, ...]] = {
    "segmentation": ("labels", "label", "annotations", "masks", "mask"), "depth": ("depth", "depths", "depth_maps")}
"""What the folders are called."""

_MAP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".pgm"})  # lossless ones


def kinds_of_maps(folder: Path) -> list[TaskName]:
    """For which dense tasks a folder holds images and maps."""
    where = [folder, *(folder / split for split in ("train", *SCORED))]
    return [task for task in MAPS if any(_places(place, task) for place in where)]


def open_pairs(folder: Path, task: TaskName) -> Source:
    """FOLDER/images/SPLIT/* and FOLDER/labels/SPLIT/*, or FOLDER/SPLIT/images/* and so on, or neither split.

    A map has its image's name, but for the ending, and lies as deep. Maps of depth lie in a folder `depth`. Numbers in
    label maps are called as FOLDER/classes.txt says, a line each.

    Args:
        folder: That holds them.
        task: `segmentation` or `depth`.

    Raises:
        Mistake: If there is no split to train on, no image, or an image has no map.
    """
    found = _places(folder, task)
    if found:
        there = [name for name in ("train", *SCORED) if (found[0] / name).is_dir()]
        splits = {name: (found[0] / name, found[1] / name) for name in there} or {"train": found}
    else:
        splits = {name: both for name in ("train", *SCORED) if (both := _places(folder / name, task))}
    if "train" not in splits:
        raise Mistake(f"a folder of images and maps needs a split named 'train'; {folder} has {sorted(splits)}. Name "
                      "the split that is trained on 'train'")
    labelled = {name: maps.is_dir() and any(maps.iterdir()) for name, (_, maps) in splits.items()}
    test = choose_scored(labelled)
    train = _part(*splits["train"])
    return Source(str(folder), named_classes(folder) if task == "segmentation" else (), train,
                  _part(*splits[test]) if test else None, test or "", task=task)


def _places(folder: Path, task: TaskName) -> tuple[Path, Path] | None:
    """The folders of images and of maps, if both are there."""
    images, maps = (next((folder / name for name in names if (folder / name).is_dir()), None)
                    for names in (IMAGES, MAPS[task]))
    return (images, maps) if images and maps else None


def _part(images: Path, maps: Path) -> Part:
    pictures = _by_name(images, SUFFIXES)
    own = _by_name(maps, _MAP_SUFFIXES)
    missing = [pictures[name] for name in pictures if name not in own]
    if not pictures:
        raise Mistake(f"images are needed ({', '.join(sorted(SUFFIXES))}); {images} has none. Put them there")
    if missing:
        raise Mistake(f"every image needs a map of its name; {len(missing)} of {len(pictures)} have none in {maps}, as "
                      f"{missing[0].name}. Put its map there ({', '.join(sorted(_MAP_SUFFIXES))}), or move the image "
                      "away")
    return Part(Files(pictures.values()), None, Files(own[name] for name in pictures))


def _by_name(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files by their place in a folder without the ending, in order.

    Raises:
        Mistake: If two differ in their ending only.
    """
    paths: Sequence[Path] = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes
                                   and not path.name.startswith(".")) if folder.is_dir() else []
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    if len(named) < len(paths):
        twice = next(path for path in paths if path not in named.values())
        raise Mistake(f"names must differ in more than their ending; {folder} has two of {twice.stem}. Move one away")
    return named
