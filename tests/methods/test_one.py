"""ONE and CL-ILR: totals on fixed answers, where branches begin, the divided trunk, FFSD's leader on top."""

from __future__ import annotations

import copy

import pytest
import torch
from features_tiny import losses, total, weights_of
from methods_tiny import NOW, ce, kl, logits, setting
from torch import Tensor

from limbeck.contract.steps import step
from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.method import Method, Stage
from limbeck.methods.one import one
from limbeck.process import exponential_ramp
from limbeck.seen import Clock

RAMP = exponential_ramp(1.0, over=80 / 300)(NOW)


def method_of(made: Method | list[Stage]) -> Method:
    return made[0].method if isinstance(made, list) else made


def known(trunk: Tensor, *names: str) -> dict[str, dict[str, Tensor]]:
    outputs = {name: {"logits": z} for name, z in logits(*names).items()}
    outputs["student"]["stage2"] = trunk
    return outputs


def test_total_is_the_papers_with_the_gate_by_the_batchs_statistics() -> None:
    method = one(tiny(), setting())
    trunk = torch.randn(8, 8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = known(trunk, "student", "peer1", "peer2")
    gate = method.double().members["gate"]
    score = trunk.mean((2, 3)) @ gate.score.weight.T + gate.score.bias
    score = (score - score.mean(0)) / (score.var(0, correction=0) + 1e-5).sqrt()
    weight = score.clamp(min=0).exp()
    weight = weight / weight.sum(1, keepdim=True)
    z = [given[name]["logits"] for name in ("student", "peer1", "peer2")]
    mixed = sum(weight[:, i, None] * x for i, x in enumerate(z))
    expected = ce(mixed) + sum(ce(x) + RAMP * kl(x, mixed, 3.0) for x in z)
    torch.testing.assert_close(total(method, given), expected, rtol=1e-6, atol=1e-6)
    assert set(method.terms) == {"ce", "peer1/ce", "peer2/ce", "gate/ce", "student/gated", "peer1/gated", "peer2/gated"}


def test_the_gated_target_is_a_constant_and_its_own_loss_is_not() -> None:
    method = one(tiny(), setting(), branches=2)
    given = known(torch.randn(8, 8, 8, 8, dtype=torch.float64), "student", "peer1")
    found = losses(method, given)
    gate = list(method.members["gate"].parameters())
    z = [given[name]["logits"] for name in ("student", "peer1")]
    slopes = torch.autograd.grad(found["student/gated"], [*z, *gate], allow_unused=True, retain_graph=True)
    assert [g is not None for g in slopes] == [True] + [False] * (1 + len(gate))
    slopes = torch.autograd.grad(found["gate/ce"], [*z, *gate])
    assert all(g.abs().sum() > 0 for g in slopes[:-2])


def test_others_teach_each_branch_the_mean_of_their_logits() -> None:
    method = one(tiny(), setting(), target="others")
    given = known(torch.zeros(8, 8, 8, 8), "student", "peer1", "peer2")
    a, b, c = (given[name]["logits"] for name in ("student", "peer1", "peer2"))
    expected = sum(ce(x) + RAMP * kl(x, (y + z) / 2, 3.0) for x, y, z in ((a, b, c), (b, a, c), (c, a, b)))
    torch.testing.assert_close(total(method, given), expected, rtol=1e-6, atol=1e-6)
    assert "gate" not in method.members


def test_a_divided_trunk_gets_a_share_of_its_gradient_and_the_branches_all_of_theirs() -> None:
    whole, divided = (one(tiny(), setting(), target="others", divide_trunk=divide) for divide in (False, True))
    slopes = []
    for method in (whole, divided):
        step(method)[0].backward()
        slopes.append({name: p.grad for name, p in method.named_parameters()})
    for name, gradient in slopes[0].items():
        trunk = name.startswith(("members.student.module.stem", "members.student.module.stages.0",
                                 "members.student.module.stages.1"))
        torch.testing.assert_close(slopes[1][name], gradient / 3 if trunk else gradient, rtol=1e-4, atol=1e-7)


def test_divergences_rise_over_80_of_300_epochs() -> None:
    method = one(tiny(), setting(), kl=2.0)
    assert weights_of(method, Clock(20, 301, 1))["peer1/gated"] == pytest.approx(2 * 2.718281828 ** (-5 * 0.75**2))
    assert weights_of(method, Clock(80, 301, 1)) == {
        name: 2.0 if name.endswith("gated") else 1.0 for name in method.terms}


@pytest.mark.parametrize(("split", "first"), [
    (None, "stages.2.0"), ("stage1", "stages.1.0"), ("stages.0", "stages.1.0")])
def test_branches_begin_behind_the_stage_before_the_last_or_where_they_are_told(split: str | None, first: str) -> None:
    peer = one(tiny(), setting(), split=split).members["peer1"]
    assert next(iter(peer.module.state_dict())) == f"{first}.weight"


def test_one_image_alone_is_gated_by_the_running_statistics() -> None:
    method = one(tiny(), setting()).train()
    before = method.members["gate"].norm.running_mean.clone()
    losses = method(method.see(batch(1), NOW), frozenset({"gate/ce"}))
    assert losses["gate/ce"].isfinite()
    assert torch.equal(method.members["gate"].norm.running_mean, before)
    method(method.see(batch(2), NOW), frozenset({"gate/ce"}))
    assert not torch.equal(method.members["gate"].norm.running_mean, before)


def test_the_first_branch_ships_as_the_whole_network() -> None:
    student = tiny()
    method = one(student, setting())
    assert method.student() is student
    tiny(seed=5).module.load_state_dict(student.deployed().state_dict())


def test_a_leader_on_top_is_ffsds_and_ships() -> None:
    student = tiny()
    stage, = one(student, setting(), leader=True)
    method = stage.method
    assert method.student() is student is method.members["leader"]
    assert method.members["fusion"].reads == ("student.stage3", "peer1.stage3", "peer2.stage3")
    assert method.members["ensemble"].reads == ("student.logits", "peer1.logits", "peer2.logits")
    weights, rows = weights_of(method), ("leader/fused", "leader/carried-stage1", "carrier_leader/stage2")
    assert [weights[name] for name in rows] == [10, 10, 1000]
    assert set(stage.optimizers) == {"fusion", "carrier_leader"}
    assert list(method.terms)[-2:] == ["carrier_leader/stage1", "carrier_leader/stage2"]  # lent before they train


def test_a_leader_does_not_change_what_the_branches_learn() -> None:
    led = method_of(one(tiny(), setting(), leader=True))
    alone = one(copy.deepcopy(led.members["student"]), setting())
    alone.load_state_dict({k: v for k, v in led.state_dict().items() if k in alone.state_dict()})
    slopes = []
    for method in (led, alone):
        step(method)[0].backward()
        slopes.append({n: p.grad for n, p in method.named_parameters() if n.startswith(("members.stud", "members.pe"))})
    torch.testing.assert_close(slopes[0], slopes[1])


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(Mistake, match="it takes two or more; got 1"):
        one(tiny(), setting(), branches=1)
    with pytest.raises(Mistake, match="tiny8 has no layer 'stage9'"):
        one(tiny(), setting(), split="stage9")
