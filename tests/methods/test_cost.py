"""What each part costs: FFSD as its released code, how often parts run, what stands in the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods_tiny import setting

from limbeck.contract.trial import Trial, batch, built, tiny
from limbeck.evaluation.cost import Cost, costs
from limbeck.members import STATISTICS, Network
from limbeck.method import Method
from limbeck.methods.ffsd import ffsd
from limbeck.methods.kd import kd
from limbeck.networks import build
from limbeck.process import Scheduled
from limbeck.report.costing import as_text
from limbeck.seen import Batch, Clock

EPOCHS = [Clock(first, 20, 10) for first in (0, 10)]


def by_name(method: Method, images: Batch | None = None) -> dict[str, Cost]:
    found = costs(method, images or batch(2, views=len(method.views)), EPOCHS, rounds=1)
    return {cost.kind if cost.kind in ("step", "deployed") else cost.part: cost for cost in found}


@pytest.mark.parametrize(("name", "network", "fusion", "carrier", "decoder"), [
    ("resnet20", (278_324, 40.81), (16_228, 0.60), (23_136, 2.36), 9_152),
    ("ffsd_wrn_16_2", (704_420, 129.4), (48_740, 2.26), (92_352, 9.44), 34_688)])
def test_ffsds_parts_cost_what_the_released_code_costs(name, network, fusion, carrier, decoder) -> None:
    leader = Network(build(name, 100), name=name, size=(3, 32, 32), statistics=STATISTICS["ffsd"],
                     factory=lambda: build(name, 100))
    (stage,) = ffsd(leader, setting())
    images = Batch(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), torch.arange(2))
    found = by_name(stage.method, images)
    for part, (parameters, macs) in {"leader": network, "student1": network, "student2": network, "fusion": fusion,
                                     "carrier_leader": carrier, "carrier_student2": carrier}.items():
        assert (found[part].parameters, found[part].macs) == (parameters, pytest.approx(macs * 1e6, rel=1e-3, abs=6e3))
    assert found["decoder"].parameters == decoder
    assert (found["target_leader"].parameters, found["target_leader"].macs) == (0, found["carrier_leader"].macs)
    assert (found["deployed"].parameters, found["deployed"].macs) == (network[0], found["leader"].macs)
    parts = [cost for cost in found.values() if cost.kind == "member"]
    assert found["step"].parameters == sum(cost.parameters for cost in parts)
    assert found["step"].macs == pytest.approx(sum(cost.macs for cost in parts))


def test_a_frozen_teacher_has_no_backward_pass_and_macs_are_per_image() -> None:
    method = built(Trial("kd"))
    found = by_name(method)
    assert found["teacher"].kind == "frozen"
    assert found["teacher"].backward < 0.05
    assert found["teacher"].parameters == sum(p.numel() for p in method.frozen["teacher"].network.parameters())
    assert by_name(method, batch(6))["teacher"].macs == pytest.approx(found["teacher"].macs)
    assert found["step"].macs == pytest.approx(found["teacher"].macs + found["student"].macs)
    assert found["step"].parameters == found["student"].parameters


def test_terms_with_layers_stand_alone_and_others_together() -> None:
    found = by_name(built(Trial("fitnet")))
    assert found["hint"].kind == "term"
    assert found["hint"].parameters > 0
    assert found["hint"].macs > 0
    assert "2 terms without layers" in by_name(built(Trial("kd")))


def test_turns_run_their_members_as_often_as_they_come() -> None:
    found = by_name(built(Trial("dml", {"form": "alternating"})))
    assert (found["student"].passes, found["peer1"].passes) == (2, 2)
    assert found["step"].macs == pytest.approx(2 * (found["student"].macs + found["peer1"].macs))


def test_what_is_dropped_half_the_time_counts_half() -> None:
    method = kd(tiny(8), tiny(12, seed=1), setting())
    late = Scheduled({"ce": 1.0, "kl": lambda clock: float(clock.step >= 10)})
    found = by_name(method.under(late))
    assert (found["teacher"].passes, found["student"].passes) == (0.5, 1.0)


@pytest.mark.parametrize("trial", [Trial("one"), Trial("kdcl"), Trial("afd"), Trial("byot"), Trial("l2tww"),
                                   Trial("crd", {"negatives": 12}), Trial("mlkd"),
                                   Trial("ffsd", networks=("vit", "cnn"))], ids=lambda t: t.label)
def test_any_method_has_costs(trial: Trial) -> None:
    method = built(trial)
    found = costs(method, batch(4, views=len(method.views)), EPOCHS, rounds=1)
    assert {cost.part for cost in found if cost.kind == "member" and cost.parameters} == set(method.owners()) & {
        name for name, member in method.members.items() if any(True for _ in member.parameters())}
    assert all(p.grad is None for p in method.parameters())


def test_the_table_sums_parts_as_often_as_they_run() -> None:
    one = Cost("student", "member", 2.0, 1_000, 5e6, 10.0, 20.0)
    text = as_text([one, replace(one, part="teacher", kind="frozen", passes=0.5, backward=0.0),
                    replace(one, part="everything", kind="step", passes=1.0), replace(one, kind="deployed")])
    lines = {line[:24].strip(): line.split() for line in text.splitlines()}
    assert lines["sum of parts"][-4:] == ["2,000", "12.50", "25.0", "40.0"]
    assert lines["teacher"] == ["teacher", "frozen", "0.5", "1,000", "5.00", "10.0", "-"]
    assert one.as_json()["flops_per_image"] == 1e7
