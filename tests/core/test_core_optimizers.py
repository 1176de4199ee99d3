"""One optimiser over all owners, and rates as functions of the clock."""

from __future__ import annotations

import math

import pytest
import torch
from core_tiny import Plain, batch, clock, network
from torch import nn

from limbeck.config import OptimizerSettings, ScheduleSettings
from limbeck.errors import Mistake
from limbeck.method import Method, Stage, Turn
from limbeck.optimizer_parts import step_turn
from limbeck.process import Scheduled
from limbeck.seen import Clock
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise
from limbeck.training.optimizers import build_optimizer, rate, set_rate


@pytest.fixture
def method() -> Method:
    terms = {"ce": Supervise("student", Classification()), "peer": Supervise("peer", Classification()),
             "map": Match("student.stage2", "peer.stage2", nn.functional.mse_loss, connect=nn.Conv2d(8, 12, 1))}
    members = {"student": network(Plain()), "peer": network(Plain(12))}
    return Method(members, terms, Scheduled(dict.fromkeys(terms, 1.0)))


def test_each_owner_has_a_group_of_its_own(method):
    own = {"peer": {"lr": 0.5, "momentum": 0.8, "nesterov": True, "weight_decay": 0}}
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.1), own)
    assert isinstance(optimizer, torch.optim.SGD)
    shown = [{key: group[key] for key in ("owner", "lr", "base_lr", "momentum", "nesterov", "weight_decay")}
             for group in optimizer.param_groups]
    assert shown == [
        {"owner": "student", "lr": 0.1, "base_lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
        {"owner": "peer", "lr": 0.5, "base_lr": 0.5, "momentum": 0.8, "nesterov": True, "weight_decay": 0}]
    stepped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(p) for p in method.parameters())


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adams_take_betas(method, name, kind):
    optimizer = build_optimizer(method, OptimizerSettings(name=name, betas=(0.5, 0.9), lr=1e-3, weight_decay=0.1), {})
    assert type(optimizer) is kind
    assert all(group["betas"] == (0.5, 0.9) and group["weight_decay"] == 0.1 for group in optimizer.param_groups)


def test_names_and_settings_must_fit(method):
    with pytest.raises(Mistake, match=r"optimizers\.studnt is for no member that learns; closest: \['student'\]"):
        build_optimizer(method, OptimizerSettings(), {"studnt": {}})
    with pytest.raises(Mistake, match=r"there is no setting rate"):
        build_optimizer(method, OptimizerSettings(), {"peer": {"rate": 1}})


def test_owners_may_have_optimisers_of_other_kinds(method):
    own = {"peer": {"name": "adam", "lr": 1e-3, "weight_decay": 0}}
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.1), own)
    assert [type(part) for part in optimizer.parts] == [torch.optim.SGD, torch.optim.Adam]
    assert [(group["owner"], group["lr"]) for group in optimizer.param_groups] == [("student", 0.1), ("peer", 1e-3)]
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    sum(method(method.see(batch(), clock()), frozenset(method.terms)).values()).backward()
    optimizer.step()
    assert not any(torch.equal(p, before[name]) for name, p in method.named_parameters())
    again = build_optimizer(method, OptimizerSettings(lr=0.1), own)
    again.load_state_dict(optimizer.state_dict())
    assert again.state_dict()["parts"][1]["state"].keys() == optimizer.state_dict()["parts"][1]["state"].keys()
    optimizer.zero_grad()
    assert all(p.grad is None for p in method.parameters())


def test_a_member_may_have_a_schedule_of_its_own(method):
    own = {"peer": {"schedule": {"kind": "constant"}}}
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.1), own)
    set_rate(optimizer, ScheduleSettings(kind="cosine"), Clock(6, 12, 4))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1])


def test_rates_reach_every_group_and_survive_a_checkpoint(method):
    settings, schedule = OptimizerSettings(lr=0.1), ScheduleSettings(kind="cosine")
    own = {"peer": {"lr": 0.5}}
    optimizer = build_optimizer(method, settings, own)
    assert set_rate(optimizer, schedule, Clock(6, 12, 4)) == pytest.approx(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.25])
    again = build_optimizer(method, settings, own)
    again.load_state_dict(optimizer.state_dict())
    set_rate(again, schedule, Clock(0, 12, 4))
    assert [group["lr"] for group in again.param_groups] == pytest.approx([0.1, 0.5])
    assert [group["owner"] for group in again.param_groups] == ["student", "peer"]


def test_it_steps_members_and_what_they_own(method):
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    optimizer = build_optimizer(method, OptimizerSettings(), {})
    sum(method(method.see(batch(), clock()), frozenset(method.terms)).values()).backward()
    optimizer.step()
    assert not any(torch.equal(p, before[name]) for name, p in method.named_parameters())


# --- turns


def test_a_turn_may_have_an_optimiser_of_its_own(method):
    method.turns = (Turn(frozenset({"ce", "peer"}), frozenset({"student", "peer"})),
                    Turn(frozenset({"map"}), frozenset({"student"}), optimizer="slow"))
    own = {"slow": {"name": "adam", "lr": 1e-3}, "peer": {"name": "adamw", "lr": 1e-2}}
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.1), own)
    assert [(type(part), group["owner"], group["lr"]) for part in optimizer.parts for group in part.param_groups] == [
        (torch.optim.SGD, "student", 0.1), (torch.optim.AdamW, "peer", 1e-2), (torch.optim.Adam, "student", 1e-3)]
    for turn, moving in ((None, {"student", "peer"}), ("slow", {"student"})):
        before = {name: p.detach().clone() for name, p in method.members.named_parameters()}
        for parameter in method.parameters():
            parameter.grad = torch.ones_like(parameter)
        step_turn(optimizer, turn)
        assert {name.partition(".")[0] for name, p in method.members.named_parameters()
                if not torch.equal(p, before[name])} == moving


def test_who_is_stepped_in_no_ordinary_turn_has_no_ordinary_settings(method):
    method.turns = (Turn(frozenset({"ce"}), frozenset({"student"})),
                    Turn(frozenset({"peer"}), frozenset({"peer"}), optimizer="slow"))
    with pytest.raises(Mistake, match=r"optimizers\.peer is for no member that learns"):
        build_optimizer(method, OptimizerSettings(), {"peer": {"lr": 0.5}})
    stage = Stage(method)
    other = Method({"student": method.members["student"]}, {"ce": method.terms["ce"]}, Scheduled({"ce": 1.0}))
    optimizer = build_optimizer(other, OptimizerSettings(), {"slow": {"lr": 0.5}}, stages=[stage])
    assert [group["owner"] for group in optimizer.param_groups] == ["student"]


# --- rates


def rates(steps: int = 40, **settings: object) -> list[float]:
    return [rate(ScheduleSettings(**settings), Clock(step, steps, 4)) for step in range(steps)]


def test_steps_drop_where_the_papers_drop():
    """150, 180 and 210 of 240 epochs."""
    found = [rate(ScheduleSettings(), Clock(epoch * 3, 720, 3)) for epoch in range(240)]
    assert found == pytest.approx([1] * 150 + [0.1] * 30 + [0.01] * 30 + [0.001] * 30)


def test_a_drop_on_an_epoch_is_not_missed_by_rounding():
    for epochs in range(10, 100):
        third = rates(epochs * 4, drops=(7 / epochs,), factor=0.5)
        assert third.index(0.5) == 7 * 4
    assert rates(12 * 4, drops=(0.6666666667,), factor=0.5).index(0.5) == 8 * 4


def test_cosine_goes_from_one_towards_zero():
    found = rates(kind="cosine")
    assert found[0] == 1
    assert found[20] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 39 / 40)))
    assert set(rates(kind="constant")) == {1.0}


def test_poly_is_that_of_semantic_segmentation():
    assert rates(kind="poly") == pytest.approx([(1 - step / 40) ** 0.9 for step in range(40)])
    assert rates(kind="poly", power=2, warm_up=0.25)[25] == pytest.approx((1 - (25 - 10) / 30) ** 2)


@pytest.mark.parametrize("kind", ["steps", "cosine", "poly", "constant"])
@pytest.mark.parametrize("part", [0.1, 0.125, 0.13, 0.26])
def test_a_warm_up_rises_in_a_line_and_never_above_the_rate(kind, part):
    found, over = rates(kind=kind, warm_up=part), part * 40
    rising = math.ceil(over - 1e-9)
    assert found[:rising] == pytest.approx([min(1.0, (step + 1) / over) for step in range(rising)])
    assert max(found) <= 1
    assert found[rising] == pytest.approx(1, abs=0.03)
