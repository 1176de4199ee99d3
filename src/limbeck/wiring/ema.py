"""The moving average of a learning network: a member that nobody steps, scored beside it, and shipped if wished."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.method import Method
from limbeck.seen import Clock, Seen
from limbeck.taps import clean_copy

NAME = "ema"
"""What the member is called."""


class Averaged(Network):
    """The exponential moving average of another member's weights and running statistics.

    After step t = 0, 1, ... of the stage,
        average <- d average + (1 - d) now,   d = min(decay, (1 + t) / (10 + t)) with warm-up, or decay;
    it begins as a copy of the network after step 0. Floating-point buffers, so batch norm's running statistics, are
    averaged like weights; counts are copied.

    Args:
        network: A member of the same method. It stays whose it is.
        decay: Share of the old average in the new one.
        warm_up: Weigh early steps more, so that short runs do not remember their beginning.

    Source: as timm's ModelEmaV3, whose average begins before the first step and whose warm-up is another curve.
    """

    network: Network

    def __init__(self, network: Network, decay: float, *, warm_up: bool = True):
        super().__init__(clean_copy(network.module).requires_grad_(False), name=network.name, size=network.size,
                         statistics=network.statistics, resize=network.resize, factory=network.factory,
                         places=None if network.places is None else network.places.tolist())
        self.__dict__["network"] = network
        self.decay, self.warm_up = decay, warm_up

    @torch.no_grad()
    def after_step(self, seen: Seen, clock: Clock) -> None:
        decay = min(self.decay, (1 + clock.step) / (10 + clock.step)) if self.warm_up else self.decay
        own, now = _values(self), _values(self.network)
        counts = [i for i, x in enumerate(own) if clock.step == 0 or not x.is_floating_point()]
        for i in counts:
            own[i].copy_(now[i])
        averaged = [i for i in range(len(own)) if i not in set(counts)]
        if averaged:
            torch._foreach_lerp_([own[i] for i in averaged], [now[i] for i in averaged], 1 - decay)


def _values(network: Network) -> list[Tensor]:
    return [*network.module.parameters(), *network.module.buffers()]


def with_average(method: Method, decay: float, *, warm_up: bool = True, deploy: bool = False) -> Method:
    """The method with the average of its deployed member beside it.

    Args:
        method: The method; a stage's, whose clock starts at 0.
        decay: As in `Averaged`.
        warm_up: As in `Averaged`.
        deploy: Ship the average in place of the member.

    Raises:
        Mistake: If the method has a member of that name.
    """
    if NAME in method.members or NAME in method.frozen:
        raise Mistake(f"training.ema adds a member '{NAME}'; the method has one of this name. Rename that one.")
    average = Averaged(method.student(), decay, warm_up=warm_up)
    return method.remade(members={**dict(method.members.items()), NAME: average},
                         deploy=NAME if deploy else method.deploy)
