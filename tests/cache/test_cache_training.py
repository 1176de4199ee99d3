"""Whole runs whose teacher is remembered: as if it had run, stopped anywhere, on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cache_tiny import KD, CachedFit, cached, teacher

from limbeck.contract.running import StopsAt
from limbeck.contract.trial import TwoRanks, built, trainer
from limbeck.errors import Stopped
from limbeck.training.trainer import Trainer


class Killed(Exception):  # noqa: N818 - nothing went wrong
    """The process is gone."""


class KilledAt(StopsAt):
    """Saves after its sixth step, goes on, and is killed in its eighth with what it computed since on disk, or not."""

    flushed = True

    def _save_if_due(self) -> None:
        if self.clock.step == 6:
            self.save()
        if self.clock.step == 7:
            if self.flushed:
                teacher(self.method).cache.flush()
            raise Killed


class KilledUnwritten(KilledAt):
    flushed = False


def parameters(run: Trainer) -> dict[str, torch.Tensor]:
    run.fit()
    return dict(run.method.state_dict())


def test_a_run_is_the_same_without_a_cache_filling_one_and_reading_it(tmp_path: Path) -> None:
    live = parameters(trainer(built(KD), tmp_path / "live"))
    for name, share in (("filling", 0.0), ("reading", 1.0)):
        run = cached(tmp_path, run=name)
        for key, value in parameters(run).items():
            torch.testing.assert_close(value, live[key], rtol=1e-5, atol=1e-7)
        assert run.run.records()[0]["cached"] == {"teacher": share}


def test_one_view_is_computed_once_and_read_ever_after(tmp_path: Path) -> None:
    run = cached(tmp_path, views=1, epochs=3)
    calls: list[int] = []
    teacher(run.stages[0].method).network.module.register_forward_pre_hook(lambda module, args: calls.append(1))
    run.fit()
    assert [record["cached"]["teacher"] for record in run.run.records() if record["kind"] == "train"] == [0, 1, 1]
    assert len(calls) == 4  # the batches of an epoch


@pytest.mark.parametrize("kind", [StopsAt, KilledAt, KilledUnwritten])
@pytest.mark.parametrize("views", [1, 2, None])
def test_stopped_or_killed_it_goes_on_as_if_never_stopped(tmp_path: Path, kind: type[Trainer],
                                                          views: int | None) -> None:
    whole = parameters(cached(tmp_path / "whole", views=views, epochs=3, dropout=0.2))
    with pytest.raises((Stopped, Killed)):
        cached(tmp_path / "parts", views=views, epochs=3, dropout=0.2, kind=kind).fit()
    torch.manual_seed(99)
    parts = parameters(cached(tmp_path / "parts", views=views, epochs=3, dropout=0.2))
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_a_search_reads_the_cache_too(tmp_path: Path) -> None:
    pairs = []
    for settings in (False, True):
        run = cached(tmp_path, run=f"{settings}", search=True) if settings else trainer(
            built(KD), tmp_path / "live", search=True)
        run.fit()
        pairs.append(run.method.process.raw)
    torch.testing.assert_close(*pairs)


def test_two_ranks_store_what_each_computes_and_read_what_both_stored(tmp_path: Path) -> None:
    one, other = (states["kd"] for states in TwoRanks([CachedFit(KD)], tmp_path).states())
    shares = one.pop("shares")
    assert shares.tolist() == [0, 1, 1, 1]
    assert one["stored"] == 24
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(list(tmp_path.glob("run0/cache/teacher/*.index"))) == 2
