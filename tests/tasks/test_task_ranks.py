"""Scores on several ranks, each a thread here, are those of one process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import ranks
from limbeck.data import Batches, Split
from limbeck.data.reading import Distances, Labels
from limbeck.data.scenes import Look, Scenes
from limbeck.evaluation.scores import score
from limbeck.members import STATISTICS, Network
from limbeck.tasks.depth import Depth
from limbeck.tasks.segmentation import VOID, Segmentation

WORLD = 3


class Together:
    """Sums tensors of all threads, as ranks would."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.meet = threading.Barrier(WORLD)

    def __call__(self, tensor: Tensor) -> Tensor:
        self.given.append(tensor)
        self.meet.wait()
        return torch.stack(self.given).sum(0)


def scenes(depth: bool, images: int = 7) -> Split:
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, 8, 10), dtype=torch.uint8, generator=chance)
    stored = torch.randint(4, (images, 8, 10), dtype=torch.uint8, generator=chance)
    stored[stored == 3] = VOID
    stored[2] = 0 if depth else VOID
    look = Look(Distances(0.001)) if depth else Look(Labels(()))
    return Split.whole(Scenes(pixels, stored.short() * 1000 if depth else stored, look), None)


@pytest.mark.parametrize("depth", [False, True])
def test_ranks_together_score_as_one(depth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    task: Any = Depth() if depth else Segmentation(3)
    network = Network(nn.Conv2d(3, 1 if depth else 3, 3, 2, 1), name="one", size=(3, 8, 10),
                      statistics=STATISTICS["identity"]).eval()
    split = scenes(depth)
    alone = score(network, Batches(split, 4, train=False), task)
    monkeypatch.setattr(ranks, "sum_over_ranks", Together())

    def one(rank: int) -> dict[str, float]:
        return score(network, Batches(split, 2, train=False, rank=rank, world=WORLD), task)

    with ThreadPoolExecutor(WORLD) as threads:
        for found in threads.map(one, range(WORLD)):
            assert found == pytest.approx(alone, rel=1e-6)
