"""A finished member that only teaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import nn

from limbeck.members.member import Member
from limbeck.members.network import Network
from limbeck.seen import Outputs, Seen


class Frozen(Member):
    """A finished member that only teaches: no gradient, and eval mode whatever `train()` says.

    Args:
        network: A network, or a member that looks at another one (FT's paraphraser). An earlier stage may still train
            it; as a teacher it feels nothing.
        view: Which of `batch.views` a network looks at; None is the images themselves.
        batch_statistics: Normalise by the batch's own statistics in batch norm (as OFD's and ReviewKD's released code
            does by never calling eval); the running statistics stay as they are.
    """

    finished = True

    def __init__(self, network: Member, *, view: int | None = None, batch_statistics: bool = False):
        super().__init__()
        self.network, self.reads, self.view = network, network.reads, view
        self.batch_statistics = batch_statistics
        self.train()

    def train(self, mode: bool = True) -> Frozen:
        super().train(False)
        return self

    def lighten(self, wanted: bool) -> None:
        """Whether passes under bf16 autocast cost less, see `Network.lighten`; by the batch's statistics none does."""
        if isinstance(self.network, Network):
            self.network.lighten(wanted and not self.batch_statistics)

    def forward(self, seen: Seen) -> Outputs:
        if any(part.training for part in (self.network, *self.network.children())):  # someone called train() on them
            self.train()
        with torch.no_grad(), _by_the_batch(self.network) if self.batch_statistics else nullcontext():
            outputs: Outputs = self.network(seen if self.view is None else _through(seen, self.view))
            return outputs


def _through(seen: Seen, view: int) -> Seen:
    """A step's `Seen` with one of the batch's further views as its images."""
    return Seen(replace(seen.batch, images=seen.batch.views[view]), seen.clock, {})


@contextmanager
def _by_the_batch(module: nn.Module) -> Iterator[None]:
    """Batch norm by the batch's own statistics; the running ones, their count included, stay as they are."""
    norms = [(m, m.training, m.track_running_stats) for m in module.modules()
             if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm, *_ in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, training, tracked in norms:
            norm.training, norm.track_running_stats = training, tracked
