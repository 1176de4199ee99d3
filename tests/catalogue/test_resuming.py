"""What a stopped run leaves behind, and what it refuses to go on with; that it goes on is part of the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catalogue import ROWS, built, trainer

from limbeck.contract.running import StopsAt
from limbeck.errors import Mistake, Stopped


def test_metrics_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trainer(built(ROWS[0]), tmp_path, kind=StopsAt).fit()
    resumed = trainer(built(ROWS[0]), tmp_path)
    resumed.run.add_record({"kind": "train", "step": 999})
    resumed.fit()
    assert [r["step"] for r in resumed.run.records()] == [4, 4, 8, 8]


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trainer(built(ROWS[1]), tmp_path, kind=StopsAt).fit()
    method = built(ROWS[1])
    with torch.no_grad():
        next(method.frozen["teacher"].parameters()).add_(1)
    with pytest.raises(Mistake, match="other frozen networks"):
        trainer(method, tmp_path).fit()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    run = trainer(built(ROWS[0]), tmp_path, epochs=1)
    run.fit()
    saved = run.run.checkpoint.read_bytes()
    run = trainer(built(ROWS[0]), tmp_path, epochs=3)
    with torch.no_grad():
        next(run.stages[0].method.parameters()).fill_(float("nan"))
    run.run.checkpoint.rename(tmp_path / "kept")
    with pytest.raises(Mistake, match=r"stopped being a number at or before step 4: ce, total"):
        run.fit()
    assert (tmp_path / "kept").read_bytes() == saved
    assert not run.run.checkpoint.exists()
