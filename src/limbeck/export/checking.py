"""Whether a file answers as the network does, on real images."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.export.formats import Answer
from limbeck.export.shipment import as_large, first_line
from limbeck.members import Network

BATCHES = (1, 8)  # sizes that every file must take
TOLERANCE = 1e-4  # of the largest answer, or of 1: kernels sum in other orders, nothing else may differ


@torch.no_grad()
def largest_difference(answer: Answer, network: Network, images: Tensor, what: str,
                       tolerance: float = TOLERANCE) -> float:
    """How far a file's answers are from the network's, over batches of several sizes.

    Args:
        answer: The file's.
        network: In eval mode, on the CPU.
        images: In [0, 1], as many as the largest batch.
        what: What messages call the file.
        tolerance: Of the largest answer, or of 1.

    Raises:
        Mistake: If it cannot answer, or answers something else.
    """
    worst = 0.0
    for count in BATCHES:
        batch = images[:count]
        expected = as_large(network.logits(batch), batch)
        try:
            got = answer(batch)
        except Exception as error:  # each format's library raises its own
            raise Mistake(f"{what} must answer batches of any size, and fails at {count}: {first_line(error)} It was "
                          f"not kept. Choose another format with --to.") from error
        if got.shape != expected.shape:
            raise Mistake(f"{what} must answer as {network.name} does; its answer to {count} images is "
                          f"{tuple(got.shape)}, the network's {tuple(expected.shape)}. It was not kept. Choose another "
                          f"format with --to.")
        difference = (got - expected).abs().max().item()
        allowed = tolerance * max(1.0, expected.abs().max().item())
        if not difference <= allowed:  # nor where it is no number
            raise Mistake(f"{what} must answer as {network.name} does; on {count} images of the run's data they "
                          f"differ by up to {difference:.3g}, and {allowed:.1g} is allowed. It was not kept. Choose "
                          f"another format with --to.")
        worst = max(worst, difference)
    return worst
