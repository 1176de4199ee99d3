"""Members without a network of their own: they look through another's, or combine what others computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from limbeck.errors import Mistake
from limbeck.members.member import Member
from limbeck.members.network import Network
from limbeck.seen import Outputs, Seen


class Look(Member):
    """Another look of a learning network at the same images: through one of the batch's further views.

    The network stays whose it is: its parameters are not this member's. A teacher's is `Frozen(teacher, view=0)`.

    Args:
        network: A member of the same method.
        view: Which of `batch.views`.
    """

    network: Network

    def __init__(self, network: Network, view: int = 0):
        super().__init__()
        self.__dict__["network"] = network
        self.view = view

    def forward(self, seen: Seen) -> Outputs:
        return self.network.read(seen.batch.views[self.view])


class Ensemble(Member):
    """The weighted mean of what several members computed: `ensemble.logits` of several logits. Gradients flow back.

    Args:
        reads: What is averaged, tensors of one shape.
        weights: One for each, in proportion; None weighs all the same.
        tap: What the mean is called.

    Raises:
        Mistake: If there are no addresses, or not one weight for each, not negative and one above 0.
    """

    def __init__(self, reads: Sequence[str], weights: Sequence[float] | None = None, *, tap: str = "logits"):
        super().__init__()
        given = list(weights if weights is not None else [1.0] * len(reads))
        if len(given) != len(reads) or sum(given) <= 0 or min(given) < 0:
            raise Mistake(f"an ensemble needs one weight for each of {list(reads)}, none below 0 and not all 0; got "
                          f"{given}. Give as many as there are members.")
        self.reads, self.tap = tuple(reads), tap
        self.answers = tap == "logits"
        self.weights = tuple(weight / sum(given) for weight in given)

    def forward(self, seen: Seen) -> Outputs:
        weighed = [weight * seen[address] for address, weight in zip(self.reads, self.weights, strict=True)]
        return {self.tap: torch.stack(weighed).sum(dim=0)}
