"""What a network computes of every image of a labelled split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.members import Network


@dataclass(frozen=True)
class Answers:
    """One tap of a network, for each image of a split.

    Attributes:
        values: (N, F).
        targets: The images' classes, (N,).
        classes: Names of the classes, in the order of the targets.
    """

    values: NDArray[np.float32]
    targets: NDArray[np.int64]
    classes: tuple[str, ...]


@torch.no_grad()
def answers(network: Network, batches: Batches, classes: tuple[str, ...], tap: str) -> Answers:
    """A tap of a network in eval mode, flattened, for each image of a split, once.

    Args:
        network: Left in eval mode.
        batches: Plain.
        classes: Names of the classes.
        tap: `logits`, `pooled`, or any other.

    Raises:
        Mistake: If the images have no labels, or the network has no such tap.
    """
    network.eval().tap([tap])
    values, targets = [], []
    for batch in batches.epoch(0):
        if batch.targets is None or batch.targets.ndim > 1:
            raise Mistake("this picture shows images by their class; these have none. Give a run whose test images "
                          "have one class each.")
        values.append(network.read(batch.images)[tap].flatten(1).float().cpu())
        targets.append(batch.targets.cpu())
    return Answers(torch.cat(values).numpy(), torch.cat(targets).numpy(), classes)
