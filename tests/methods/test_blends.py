"""Blends: whom a teacher pulls beside networks that learn together, what is shared, what stays, what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from methods_tiny import setting

from limbeck.config import MethodSettings, OptimizerSettings
from limbeck.contract.steps import step
from limbeck.contract.trial import Trial, built, stages, tiny
from limbeck.errors import Mistake
from limbeck.evaluation.scores import together
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage, Turn
from limbeck.methods.afd import afd
from limbeck.methods.at import at
from limbeck.methods.crd import crd
from limbeck.methods.dml import dml
from limbeck.methods.ffsd import ffsd
from limbeck.methods.kd import kd
from limbeck.methods.one import one
from limbeck.methods.reviewkd import reviewkd
from limbeck.seen import Clock
from limbeck.training.optimizers import build_optimizer
from limbeck.wiring import build_stages
from limbeck.wiring.blending import blend

LATE = Clock(19, 20, 10)


def pair() -> tuple[Network, Network]:
    return tiny(8), tiny(12, seed=1)


def mixed(name: str, student: Network | None = None, **options: object) -> Stage:
    (stage,) = build_stages(MethodSettings(name=name, **options), student or tiny(8), tiny(12, seed=1), setting())
    return stage


def test_the_teacher_pulls_ffsds_leader_as_it_would_pull_a_student() -> None:
    student, teacher = pair()
    alone, group = kd(student, teacher, setting()).train(), ffsd(student, setting())[0].method.train()
    both = blend({"kd": alone, "ffsd": group}).train()
    assert (both.deploy, both.supervised, both.members["leader"]) == ("leader", "ce", student)
    assert "student" not in both.members
    state = copy.deepcopy(both.state_dict())
    apart = {f"kd/{name}": loss for name, loss in step(alone)[1].items()}
    apart |= {f"ffsd/{name}": loss for name, loss in step(group)[1].items()}
    apart["ce"] = apart.pop("kd/ce")
    torch.testing.assert_close(apart.pop("ffsd/leader/ce"), apart["ce"])
    both.load_state_dict(state)  # carriers, lent in eval mode, show whether a step has gone by
    found = step(both)[1]
    assert found.keys() == apart.keys()
    for name, loss in found.items():
        torch.testing.assert_close(loss, apart[name], msg=name)


def test_weights_are_each_methods_own_and_the_supervised_loss_has_the_largest() -> None:
    student, teacher = pair()
    parts = {"kd": kd(student, teacher, setting(), ce=0.1, kl=0.9), "ffsd": ffsd(student, setting())[0].method}
    both = blend(parts)
    weights = dict(zip(both.process.names, both.process.weights(LATE).tolist(), strict=True))
    assert weights["ce"] == 1
    assert weights["kd/kl"] == pytest.approx(0.9)
    own = dict(zip(parts["ffsd"].process.names, parts["ffsd"].process.weights(LATE).tolist(), strict=True))
    assert {f"ffsd/{name}": weight for name, weight in own.items() if name != "leader/ce"}.items() <= weights.items()
    assert set(both.terms) == set(both.process.names)
    assert both.process.active(LATE) == set(both.terms)


@pytest.mark.parametrize("order", ["reviewkd+ffsd", "ffsd+reviewkd"])
def test_members_that_read_the_student_read_the_leader(order: str) -> None:
    stage = mixed(order)
    assert any(address.startswith("leader.") for address in stage.method.members["review"].reads)
    assert stage.method.supervised == "ce"
    leader = list(stage.method.members["leader"].parameters())
    _, losses, _ = step(stage.method.train())
    levels = [loss for name, loss in losses.items() if name.startswith("reviewkd/level")]
    assert levels
    for loss in levels:
        gradients = torch.autograd.grad(loss, leader, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_a_group_with_a_student_of_its_own_keeps_it() -> None:
    """ONE's leader ships, and what ONE calls `student` is its trunk: the teacher pulls the leader, not that."""
    student, teacher = pair()
    group = one(student, setting(), branches=2, leader=True)[0].method
    both = blend({"at": at(student, teacher, setting()), "one": group}).train()
    assert both.members["leader"] is student
    assert both.members["student"] is group.members["student"]
    _, losses, _ = step(both)
    trunk = list(both.members["student"].parameters())
    assert all(g is None for g in torch.autograd.grad(losses["at/stage3"], trunk, retain_graph=True, allow_unused=True))


def test_peers_feel_nothing_of_the_teacher_and_the_ensemble_is_the_groups() -> None:
    stage = mixed("kd+dml", dml={"copies": 2})
    _, losses, _ = step(stage.method.train())
    peers = [p for name in ("peer1", "peer2") for p in stage.method.members[name].parameters()]
    assert all(g is None for g in torch.autograd.grad(losses["kd/kl"], peers, allow_unused=True))
    assert together(stage.method) == ["student", "peer1", "peer2"]


def test_everyone_is_stepped_by_an_optimiser_of_their_own() -> None:
    stage = mixed("kd+ffsd")
    own = {**stage.optimizers, "leader": {"lr": 0.3}, "student1": {"name": "adamw", "lr": 1e-3}}
    optimizer = build_optimizer(stage.method, OptimizerSettings(lr=0.1), own)
    groups = {group["owner"]: group for group in optimizer.param_groups}
    assert {name: groups[name]["lr"] for name in ("leader", "student1", "student2", "carrier_leader")} == {
        "leader": 0.3, "student1": 1e-3, "student2": 0.1, "carrier_leader": 1e-3}
    assert groups["fusion"]["weight_decay"] == 1e-5
    assert "betas" in groups["student1"]
    assert "teacher" not in groups


def test_a_term_under_other_names_says_of_itself_what_it_is() -> None:
    student, teacher = pair()
    alone = crd(student, teacher, setting_with_labels(), negatives=4)
    found, plain = blend({"crd": alone, "ffsd": ffsd(student, setting())[0].method}).terms, alone.terms
    assert found["crd/contrast"].indexed
    for what in ("owner", "searchable", "labelled", "sure", "indexed"):
        assert getattr(found["crd/contrast"], what) == getattr(plain["contrast"], what)


def setting_with_labels() -> Setting:
    return replace(setting(), labels=torch.arange(8) % 4, rows=torch.arange(8))


# --- turns


def turns(method: Method) -> list[tuple[frozenset[str], frozenset[str] | None, str | None]]:
    return [(turn.terms, turn.owners, turn.optimizer) for turn in method.turns]


def test_a_teacher_joins_the_turn_of_the_network_that_ships() -> None:
    student, teacher = pair()
    both = blend({"kd": kd(student, teacher, setting()), "dml": dml(student, setting(), form="alternating")})
    assert turns(both) == [
        (frozenset({"ce", "kd/kl", "dml/student/peer1"}), frozenset({"student"}), None),
        (frozenset({"dml/peer1/ce", "dml/peer1/student"}), frozenset({"peer1"}), None)]


def test_members_of_the_other_method_are_stepped_in_that_turn() -> None:
    student, teacher = pair()
    both = blend({"afd": afd(student, setting())[0].method, "reviewkd": reviewkd(student, teacher, setting())})
    first, second = both.turns
    assert first.owners == {"student", "peer1", "review"}
    assert {"ce", "reviewkd/level1", "afd/student/peer1"} <= first.terms
    assert (second.optimizer, second.owners) == ("adversarial", None)
    assert not {term for term in second.terms if term.startswith("reviewkd/")}


# --- what does not blend


def test_two_methods_of_several_turns_are_refused() -> None:
    student, _ = pair()
    several = {"afd": afd(student, setting())[0].method, "dml": dml(student, setting(), form="alternating")}
    several["dml"].members["other"] = several["dml"].members.pop("peer1")  # so that turns are all they disagree on
    with pytest.raises(Mistake, match=r"both have a member 'ensemble'"):
        blend(several)
    parts = {"dml": dml(student, setting(), form="alternating"), "kd": kd(*pair_with(student), setting())}
    parts["kd"].turns = (Turn(frozenset({"ce"})), Turn(frozenset({"kl"})))
    with pytest.raises(Mistake, match="dml and kd do not blend: each takes several turns in a step"):
        blend(parts)


def pair_with(student: Network) -> tuple[Network, Network]:
    return student, tiny(12, seed=1)


def test_a_method_none_of_whose_turns_steps_what_ships_is_refused() -> None:
    student, teacher = pair()
    group = dml(student, setting(), form="alternating")
    group.turns = tuple(Turn(turn.terms, turn.owners, "own") for turn in group.turns)
    with pytest.raises(Mistake, match="none of its turns steps what ships by the run's optimiser"):
        blend({"kd": kd(student, teacher, setting()), "dml": group})


def test_methods_that_ship_different_networks_are_refused() -> None:
    student, teacher = pair()
    with pytest.raises(Mistake, match="methods of a blend ship one network; kd, ffsd ship different ones"):
        blend({"kd": kd(student, teacher, setting()), "ffsd": ffsd(tiny(8), setting())[0].method})


def test_two_teachers_of_one_name_are_refused() -> None:
    student, teacher = pair()
    with pytest.raises(Mistake, match="both have a frozen network 'teacher', and not the same one"):
        blend({"kd": kd(student, teacher, setting()), "at": at(student, tiny(12, seed=2), setting())})


def test_two_groups_are_refused() -> None:
    with pytest.raises(Mistake, match="ffsd does not blend with the methods before it: both have a member 'ensemble'"):
        stages(Trial("dml+ffsd"))


def test_a_blend_of_groups_steps_and_ships_clean() -> None:
    method = built(Trial("kd+ffsd"))
    step(method)[0].backward()
    assert set(method.student().deployed().state_dict()) == set(tiny(8).module.state_dict())
