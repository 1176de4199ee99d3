"""Tiny networks that ship: a classifier, one of normalised layers, and one that answers with a small map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from limbeck.export.shipment import Shipment, described
from limbeck.members import Network, Statistics

STATISTICS = Statistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def classifier() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Dropout(0.5), nn.Linear(32, 4))


def by_layer() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.Flatten(2), nn.LayerNorm(4), nn.Linear(4, 32), nn.GELU(),
                         nn.Flatten(), nn.Linear(1024, 4))


def large(num_classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def mapper() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))


class OneImage(nn.Module):
    """A classifier whose code makes the number of images a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier()

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.body(x)
        return torch.stack([answers[i] for i in range(len(answers))])


def network(build: Callable[[], nn.Module] = classifier, size: int = 8, *, resize: bool = False,
            places: Sequence[int] | None = None) -> Network:
    """With running statistics of its own, in eval mode."""
    torch.manual_seed(0)
    made = Network(build(), name="tiny", size=(3, size, size), statistics=STATISTICS, resize=resize, factory=build,
                   places=places)
    with torch.no_grad():
        made.train().logits(torch.rand(16, 3, size, size))
    return made.eval()


def shipment(made: Network, shape: Sequence[int] = (3, 8, 8), task: str = "classification") -> Shipment:
    return Shipment(made, shape, described(made, shape, task, ("a", "b", "c", "d")))


def images(count: int = 8, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
