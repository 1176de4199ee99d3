"""What ranks exchange, one of them played by the test."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from limbeck import ranks


@pytest.mark.parametrize(("own", "other"), [(3, 3), (3, 5), (5, 2), (0, 4)])
def test_gathered_tensors_stand_one_after_the_other(monkeypatch: pytest.MonkeyPatch, own: int, other: int) -> None:
    mine, theirs = torch.randn(own, 2), torch.randn(other, 2)

    def all_gather(parts: list[Tensor], tensor: Tensor) -> None:
        parts[0].copy_(tensor)
        parts[1].copy_(torch.tensor(other) if tensor.ndim == 0
                       else torch.cat([theirs, torch.full((len(tensor) - other, 2), 9.0)]))

    monkeypatch.setattr(ranks, "several", lambda: True)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    assert torch.equal(ranks.gathered(mine), torch.cat([mine, theirs]))


def test_alone_nothing_is_gathered() -> None:
    mine = torch.randn(3, 2)
    assert ranks.gathered(mine) is mine
