"""TAKD: each stage is KD from whoever learned in the one before."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from methods_tiny import ce, kl, logits, setting, total, trainer

from limbeck.contract.trial import tiny
from limbeck.errors import Stopped
from limbeck.jobs.doing import _scores
from limbeck.methods.takd import takd
from limbeck.runs import Run
from limbeck.tasks.classification import Classification
from limbeck.training.trainer import Trainer
from limbeck.wiring import networks_of


def chain(**options):
    networks = [tiny(12, seed=1), tiny(11, seed=2), tiny(10, seed=3), tiny()]
    return networks, takd(networks[-1], networks[0], setting(), assistants=networks[1:-1], **options)


def test_each_learns_from_the_one_before():
    networks, stages = chain()
    assert [stage.name for stage in stages] == ["assistant1", "assistant2", "student"]
    assert [stage.method.frozen["teacher"].network for stage in stages] == networks[:-1]
    assert [stage.method.student() for stage in stages] == networks[1:]


@pytest.mark.parametrize(("options", "share", "temperature"), [
    ({}, 0.9, 4.0), ({"ce": 0.4, "kl": 0.6, "temperature": 10.0}, 0.6, 10.0)])
def test_every_stages_total_is_kd(options, share, temperature):
    z = logits("student", "teacher")
    expected = (1 - share) * ce(z["student"]) + share * kl(z["student"], z["teacher"], temperature)
    for stage in chain(**options)[1]:
        torch.testing.assert_close(total(stage.method, z), expected, rtol=1e-6, atol=1e-6)


def test_assistants_are_networks_that_a_job_must_give():
    assert networks_of("takd") == {"assistants": False}


class StopsInTheSecondStage(Trainer):
    """A trainer that is asked to stop after the first step of its second stage."""

    def _save_if_due(self) -> None:
        self.interrupts.asked = (self.stage, self.clock.step) == (1, 1)
        super()._save_if_due()


def test_a_chain_stopped_in_its_second_stage_resumes_bit_for_bit(tmp_path: Path):
    whole = trainer(chain()[1], tmp_path / "whole")
    whole.fit()
    with pytest.raises(Stopped):
        trainer(chain()[1], tmp_path / "parts", kind=StopsInTheSecondStage).fit()
    resumed = trainer(chain()[1], tmp_path / "parts")
    torch.manual_seed(99)
    resumed.fit()
    for one, other in zip(whole.stages, resumed.stages, strict=True):
        for x, y in zip(one.method.state_dict().values(), other.method.state_dict().values(), strict=True):
            assert torch.equal(x, y)


def test_the_result_is_that_of_the_last_stage(tmp_path: Path):
    run = Run(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    scores = {("assistant1", 2): 90.0, ("assistant1", 4): 80.0, ("student", 2): 60.0, ("student", 4): 50.0}
    for (stage, step), top1 in scores.items():
        for kind in ("test", "select"):
            run.add_record({"kind": kind, "stage": stage, "step": step, "top1": top1})
    found = _scores(run, Classification())
    assert found["test"] == {"last": {"step": 4, "top1": 50.0}, "peak": {"step": 2, "top1": 60.0}}
    assert found["select"]["test_at_best"] == {"step": 2, "top1": 60.0}


def test_the_best_of_one_stage_is_not_compared_with_anothers(tmp_path: Path):
    run = trainer(chain()[1], tmp_path)
    run._prepare(0, {}, {})
    run.best = 99.0
    run._prepare(1, {}, {})
    assert run.best == -math.inf
