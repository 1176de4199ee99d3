"""What every source of images gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from limbeck.data.decode import Encoded

SCORED = ("test", "val", "validation", "valid")
"""Names of splits that can be scored, the best first."""


@dataclass(frozen=True)
class Part:
    """One split as its source has it.

    Attributes:
        images: uint8 (N, 3, H, W), or still encoded.
        targets: Class of each, (N,), int64; None for unlabelled images.
    """

    images: Tensor | Encoded
    targets: Tensor | None

    def select(self, rows: Tensor) -> Part:
        """Only these images, in this order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.select(rows.tolist())
        return Part(images, None if self.targets is None else self.targets[rows])


@dataclass(frozen=True)
class Source:
    """A data set before anything is chosen, decoded or resized.

    Attributes:
        name: What to call it.
        classes: Their names, in the order of the targets.
        train: What may be trained on.
        test: What is scored; None where a part of `train` has to be cut off for it.
        scored: Which of the data set's splits `test` is.
        mirrored: Whether an image seen in a mirror is still of its class, as far as the source knows.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    scored: str = ""
    mirrored: bool = True


def choose_scored(labelled: Mapping[str, bool]) -> str | None:
    """Which split to score: the first that has labels; where training images have none either, the first.

    Args:
        labelled: For each split by name, `train` among them, whether it has labels.
    """
    fit = [name for name in SCORED if name in labelled and (labelled[name] or not labelled["train"])]
    return next((name for name in fit if labelled[name]), fit[0] if fit else None)
