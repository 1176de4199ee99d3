"""One step of a tried method, on real or made-up outputs of its networks; and what a broken contract says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from limbeck.contract.trial import batch, task_of
from limbeck.members import Network
from limbeck.method import Method
from limbeck.seen import Batch, Clock, Outputs, Seen

CLOCK = Clock(5, 20, 10)
IMAGES = 8


class Broken(Exception):  # noqa: N818 - what it is said of is the contract
    """A part of the contract that does not hold.

    Args:
        found: What was found.
        advice: What to do.
    """

    def __init__(self, found: str, advice: str):
        super().__init__(f"{found}. {advice}")
        self.found, self.advice = found, advice


class NotClaimed(Exception):  # noqa: N818 - nothing went wrong
    """A check of a claim that the loss does not make."""


def images_for(method: Method, count: int = IMAGES, *, seed: int = 0) -> Batch:
    """Random images with targets of the method's task, and as many views as it looks at."""
    return batch(count, seed=seed, views=len(method.views), task=task_of(method))


def step(method: Method, images: Batch | None = None, *, known: Mapping[str, Outputs] | None = None,
         aliased: bool = False) -> tuple[Tensor, dict[str, Tensor], Seen]:
    """The weighted sum of the active terms, the terms' values, and what was seen."""
    losses, seen = values(method, images, known=known, aliased=aliased)
    return weighed(method, losses), losses, seen


def values(method: Method, images: Batch | None = None, *, known: Mapping[str, Outputs] | None = None,
           aliased: bool = False) -> tuple[dict[str, Tensor], Seen]:
    """The active terms' values, and what was seen; with the same random numbers each time."""
    torch.manual_seed(7)
    seen = method.see(images or images_for(method), CLOCK, known=known, aliased=aliased)
    losses: dict[str, Tensor] = method(seen, method.process.active(CLOCK))
    return losses, seen


def weighed(method: Method, losses: Mapping[str, Tensor]) -> Tensor:
    """The weighted sum of terms."""
    weights = dict(zip(method.process.names, method.process.weights(CLOCK), strict=True))
    return torch.stack([weights[name].to(loss) * loss for name, loss in losses.items()]).sum()


Fill = Callable[[tuple[int, ...], Tensor, bool], Tensor]
"""(shape, noise of that shape, whether it is a learning network's) -> what a tap gives."""


def known_outputs(method: Method, fill: Fill) -> dict[str, Outputs]:
    """What every network of a method gives, made up tap by tap; those that learn give what takes gradients."""
    networks = {name: member for name, member in method.members.items() if isinstance(member, Network)}
    networks |= {name: f.network for name, f in method.frozen.items() if isinstance(f.network, Network)}
    known: dict[str, Outputs] = {}
    for place, (name, network) in enumerate(networks.items()):
        taps = dict.fromkeys(["logits", *(a.partition(".")[2] for a in method.reads() if a.partition(".")[0] == name)])
        known[name], learns = {}, name in method.members
        for i, tap in enumerate(taps):
            shape = (IMAGES, *network.shape(tap))
            known[name][tap] = fill(shape, noise(torch.empty(shape), 100 * place + i), learns).requires_grad_(learns)
    return known


def noise(like: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)
