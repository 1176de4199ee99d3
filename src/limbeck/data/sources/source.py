"""What every source of images gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from limbeck.data.decode import Encoded
from limbeck.errors import Mistake

TaskName = Literal["classification", "segmentation", "depth"]

SCORED = ("test", "val", "validation", "valid")
"""Names of splits that can be scored, the best first."""


@dataclass(frozen=True)
class Part:
    """One split as its source has it.

    Attributes:
        images: uint8 (N, 3, H, W), or still encoded.
        targets: Class of each, (N,), int64; None for unlabelled images.
        maps: A map of each, still encoded, for dense tasks.
    """

    images: Tensor | Encoded
    targets: Tensor | None
    maps: Encoded | None = None

    def select(self, rows: Tensor) -> Part:
        """Only these images, in this order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.select(rows.tolist())
        return Part(images, None if self.targets is None else self.targets[rows],
                    None if self.maps is None else self.maps.select(rows.tolist()))


@dataclass(frozen=True)
class Source:
    """A data set before anything is chosen, decoded or resized.

    Attributes:
        name: What to call it.
        classes: Their names, in the order of the targets; those of label maps by number, void among them, or none where
            the source names none.
        train: What may be trained on.
        test: What is scored; None where a part of `train` has to be cut off for it.
        scored: Which of the data set's splits `test` is.
        mirrored: Whether an image seen in a mirror is still of its class, as far as the source knows.
        task: What its targets are.
        order: The numbers in label maps that `classes` name, where these are not 0, 1, 2...; all others are void.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    scored: str = ""
    mirrored: bool = True
    task: TaskName = "classification"
    order: tuple[int, ...] | None = None


def choose_scored(labelled: Mapping[str, bool]) -> str | None:
    """Which split to score: the first that has labels; where training images have none either, the first.

    Args:
        labelled: For each split by name, `train` among them, whether it has labels.
    """
    fit = [name for name in SCORED if name in labelled and (labelled[name] or not labelled["train"])]
    return next((name for name in fit if labelled[name]), fit[0] if fit else None)


def named_classes(folder: Path) -> tuple[str, ...]:
    """What a folder's `classes.txt` calls the numbers in its label maps, a line each from 0 on; none without it."""
    file = folder / "classes.txt"
    if not file.is_file():
        return ()
    try:
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError:
        raise Mistake(f"{file} must name a class a line in UTF-8; it is no such text. Save it again, or move it "
                      "away") from None
