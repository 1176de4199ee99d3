"""Stopped anywhere and resumed = never stopped, bit for bit, for every method and for a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import ROWS, Row, built, trainer

from limbeck.errors import Mistake, Stopped
from limbeck.trainer import Trainer


class StopsAt(Trainer):
    """A trainer that is asked to stop after its sixth step, in the middle of the second epoch."""

    def _save_if_due(self) -> None:
        self.interrupts.asked = self.clock.step == 6
        super()._save_if_due()


def everything(run: Trainer) -> dict[str, Any]:
    """All state that training leaves behind."""
    seconds = ("seconds", "images_per_second")
    records = [{k: v for k, v in record.items() if k not in seconds} for record in run.run.records()]
    companion = run.companion.state_dict() if run.companion is not None else None
    return {"method": run.method.state_dict(), "optimizer": run.optimizer.state_dict(), "records": records,
            "companion": companion, "random": torch.get_rng_state()}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("search", [False, True], ids=["plain", "search"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_stopped_and_resumed_equals_never_stopped(row: Row, search: bool, tmp_path: Path) -> None:
    search = search and row.method != "none"
    whole = trainer(built(row, dropout=0.2), tmp_path / "whole", search=search)
    whole.fit()
    with pytest.raises(Stopped, match="limbeck resume"):
        trainer(built(row, dropout=0.2), tmp_path / "parts", search=search, kind=StopsAt).fit()
    resumed = trainer(built(row, dropout=0.2), tmp_path / "parts", search=search)
    torch.manual_seed(99)  # whatever happened in between
    resumed.fit()
    assert resumed.clock == whole.clock
    for key, value in everything(whole).items():
        assert same(value, everything(resumed)[key]), key


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
