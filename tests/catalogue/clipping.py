"""DistPro under a process that loses pathways as it goes: what tests of the clip rule train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from catalogue import Row, built, trainer
from torch import Tensor

from limbeck.contract.trial import Fit
from limbeck.method import Method
from limbeck.process import Replayed
from limbeck.process.recorded import Recorded

ROW = Row("distpro", {"transforms": ("c2",)}, pulls={})
EPOCHS, IMAGES = 3, 24


def clipped() -> Method:
    """DistPro under a process that never has its first pathway, and loses another with each epoch."""
    method = built(ROW)
    names = method.searchable()
    raw = torch.ones(EPOCHS, len(names))
    for epoch in range(EPOCHS):
        raw[epoch:, epoch] = 0.0
    recorded = Recorded(names, raw, raw, "biased-softmax", float(len(names)))
    stretch = [(0.0, 0.0), (0.34, 0.5), (0.67, 1.0), (1.0, 1.0)]  # a row an epoch
    return method.under(Replayed(method.process, recorded, granularity="epoch", warp=stretch))


def connectors(state: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """The parameters of each pathway's transform, by the pathway's name."""
    found: dict[str, list[Tensor]] = {}
    for name, value in state.items():
        if name.startswith("terms.") and ".connect." in name and "running" not in name:
            found.setdefault(name.split(".")[1], []).append(value)
    return found


@dataclass(frozen=True)
class Clipped(Fit):
    """A training of `clipped`, told to other processes."""

    @property
    def label(self) -> str:
        return "clipped"

    def state(self, folder: Path) -> dict[str, Tensor]:
        run = trainer(clipped(), folder, epochs=EPOCHS, images=IMAGES)
        run.fit()
        return {name: p.detach().clone() for name, p in run.method.named_parameters()}
