"""A method says the same of a batch whether its frozen network runs, is stored now, or was stored before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catalogue import ROWS, Row, stages

from limbeck.cache import Remembered, remember, turn_over
from limbeck.config import CacheSettings
from limbeck.contract.trial import split
from limbeck.data import Augmentation, Batches, Views
from limbeck.errors import Mistake
from limbeck.method import Method
from limbeck.seen import Batch, Clock

CROPS = Augmentation("crop-flip", 2)
LIVE = {"none", "dml", "one", "okddip", "kdcl", "ffl", "ffsd", "byot", "afd", "ban", "end2"}
"""Methods in which no finished network teaches, or only one that learned in the run or looks at a further view."""
FIRST = list({(row.method, row.stage): row for row in reversed(ROWS)}.values())[::-1]


def losses(method: Method, batch: Batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return method(method.see(batch, Clock(3, 8, 4)), frozenset(method.terms))


@pytest.mark.parametrize("row", FIRST, ids=lambda row: row.label)
def test_losses_are_those_of_the_live_networks(row: Row, tmp_path: Path) -> None:
    images, live = split(30, row.task), stages(row)[row.stage].method.train()
    settings = CacheSettings(folder=str(tmp_path), taps=None, precision="float32")
    if row.method in LIVE or row.options.get("batch_statistics"):
        with pytest.raises(Mistake, match="there is none to store here"):
            remember(stages(row), settings, images, CROPS, {})
        return
    views, expected = Views((CROPS, *[CROPS] * len(live.views))), None
    for share in (0.0, 1.0):  # the folder is empty first, then has the batch
        parts = stages(row)
        found = remember(parts, settings, images, CROPS, {})
        cached = parts[row.stage].method.train()
        batch = next(Batches(images, 8, train=True, augmentation=views, repertoire=found.repertoire).epoch(0))
        expected = expected or losses(live, batch)
        for name, loss in losses(cached, batch).items():
            torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)
        remembered = [name for name, frozen in cached.frozen.items() if isinstance(frozen, Remembered)]
        assert turn_over(cached.frozen, torch.device("cpu")) == dict.fromkeys(remembered, share)
