"""The student's moving average: what it is, who steps it, how it is scored and shipped, and that it goes on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn

from limbeck.config import TrainingSettings
from limbeck.contract.running import StopsAt
from limbeck.contract.trial import Trial, batch, built, trainer
from limbeck.errors import Mistake, Stopped
from limbeck.evaluation.groups import ANY_RIGHT
from limbeck.evaluation.scores import score_group
from limbeck.method import Method
from limbeck.seen import Clock
from limbeck.wiring.ema import Averaged, with_average

KD = Trial("kd")


def averaged(deploy: bool = False, decay: float = 0.9, **options: bool) -> Method:
    return with_average(built(KD), decay, deploy=deploy, **options)


def step(method: Method, number: int) -> None:
    """A step that changes everything there is, running statistics and counts included."""
    chance = torch.Generator().manual_seed(number)
    student = method.student().module
    with torch.no_grad():
        for x in (*student.parameters(), *student.buffers()):
            x.add_(torch.rand(x.shape, generator=chance) if x.is_floating_point() else 1)
    method.after_step(method.see(batch(2), Clock(number, 10, 5)))


@pytest.mark.parametrize("warm_up", [True, False])
def test_it_is_the_exponential_average_of_weights_and_statistics(warm_up: bool) -> None:
    method = averaged(decay=0.4, warm_up=warm_up)
    wanted: dict[str, torch.Tensor] = {}
    for number in range(5):
        step(method, number)
        now = copy.deepcopy(method.student().module.state_dict())
        decay = min(0.4, (1 + number) / (10 + number)) if warm_up else 0.4
        wanted = {key: x if number == 0 or not x.is_floating_point() else decay * wanted[key] + (1 - decay) * x
                  for key, x in now.items()}
    found = method.members["ema"].module.state_dict()
    for key, x in wanted.items():
        torch.testing.assert_close(found[key], x)


def test_without_warm_up_it_is_timms() -> None:
    method = averaged(decay=0.7, warm_up=False)
    step(method, 0)
    theirs = ModelEmaV3(method.student().module, decay=0.7)
    for number in range(1, 4):
        step(method, number)
        theirs.update(method.student().module)
    for key, x in theirs.module.state_dict().items():
        torch.testing.assert_close(method.members["ema"].module.state_dict()[key], x)


def test_nobody_steps_it_and_it_does_not_learn_with_the_group() -> None:
    method = averaged()
    assert set(method.owners()) == {"student"}
    assert not any(p.requires_grad for p in method.members["ema"].parameters())
    with pytest.raises(Mistake, match="has one of this name"):
        with_average(method, 0.9)


def test_it_is_scored_beside_the_student_and_ships_if_wished(tmp_path: Path) -> None:
    for deploy in (False, True):
        run = trainer(averaged(deploy), tmp_path / str(deploy))
        run.fit()
        record = [record for record in run.run.records() if record["kind"] == "test"][-1]
        assert set(record["members"]) == {"student", "ema"}
        shown = record["members"]["ema" if deploy else "student"]
        assert {key: record[key] for key in shown} == shown
        run.run.save_weights(run.method.student())
        member = run.method.members["ema" if deploy else "student"]
        assert isinstance(member, Averaged) == deploy
        for key, x in load_file(run.run.weights).items():
            assert torch.equal(x, member.module.state_dict()[key])
        assert ANY_RIGHT not in score_group(run.method, run.splits["test"], run.task)


def test_stopped_and_resumed_it_is_as_if_never_stopped(tmp_path: Path) -> None:
    whole = trainer(averaged(), tmp_path / "whole")
    whole.fit()
    with pytest.raises(Stopped):
        trainer(averaged(), tmp_path / "parts", kind=StopsAt).fit()
    parts = trainer(averaged(), tmp_path / "parts")
    parts.fit()
    state = parts.method.members["ema"].module.state_dict()
    for key, x in whole.method.members["ema"].module.state_dict().items():
        assert torch.equal(x, state[key])


def test_training_is_the_same_with_and_without_it(tmp_path: Path) -> None:
    with_it, without = trainer(averaged(), tmp_path / "a"), trainer(built(KD), tmp_path / "b")
    with_it.fit()
    without.fit()
    modules: list[nn.Module] = [run.method.members["student"] for run in (with_it, without)]
    for x, y in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(x, y)


def test_shipping_it_needs_one() -> None:
    with pytest.raises(ValueError, match="none is kept"):
        TrainingSettings(deploy_ema=True)
