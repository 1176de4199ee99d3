"""Cityscapes as published: leftImg8bit and gtFine, 34 labels of which 19 are trained."""

from __future__ import annotations

from pathlib import Path

from limbeck.data.sources.folder import Files
from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake

IMAGES, MAPS = "leftImg8bit", "gtFine"
CLASSES = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
           20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
           27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
"""The labels that are trained and scored, in the order of their train ids 0 to 18; all others are void."""


def is_cityscapes(folder: Path) -> bool:
    """Whether both packages lie unpacked in a folder."""
    return (folder / IMAGES).is_dir() and (folder / MAPS).is_dir()


def open_cityscapes(folder: Path) -> Source:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png.

    The split `val` is scored, as the labels of `test` are not published.

    Raises:
        Mistake: If a split is missing, or an image has no label map.
    """
    return Source("cityscapes", tuple(CLASSES.values()), _part(folder, "train"), _part(folder, "val"), "val",
                  task="segmentation", order=tuple(CLASSES))


def _part(folder: Path, split: str) -> Part:
    images = sorted((folder / IMAGES / split).glob(f"*/*_{IMAGES}.png"))
    if not images:
        raise Mistake(f"Cityscapes has images in {folder / IMAGES / split}/CITY/*_{IMAGES}.png; there are none. Unpack "
                      f"{IMAGES}_trainvaltest.zip there")
    maps = [folder / MAPS / split / image.parent.name / image.name.replace(f"_{IMAGES}", f"_{MAPS}_labelIds")
            for image in images]
    missing = [path for path in maps if not path.is_file()]
    if missing:
        raise Mistake(f"every image of Cityscapes needs its label map; {len(missing)} of {len(maps)} are not there, as "
                      f"{missing[0]}. Unpack {MAPS}_trainvaltest.zip there")
    return Part(Files(images), None, Files(maps))
