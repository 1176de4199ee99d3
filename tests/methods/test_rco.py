"""RCO: one anchor after the other, in one run or in a run each."""

from __future__ import annotations

import torch
from methods_tiny import ce, kl, logits, setting, total

from limbeck.contract.trial import tiny
from limbeck.methods.rco import rco
from limbeck.seen import Clock

ROUTE = ("anchor1", "anchor2", "teacher")


def build(**options):
    student, *anchors, teacher = tiny(), tiny(12, seed=1), tiny(12, seed=2), tiny(12, seed=3)
    return [*anchors, teacher], rco(student, teacher, setting(), anchors=anchors, **options)


def test_every_anchor_has_its_third_of_the_run_the_teacher_the_last():
    z, method = logits("student", *ROUTE), build()[1]
    for step in range(12):
        anchor = ROUTE[step // 4]
        expected = 0.1 * ce(z["student"]) + 0.9 * kl(z["student"], z[anchor])
        torch.testing.assert_close(total(method, z, Clock(step, 12, 4)), expected, rtol=1e-6, atol=1e-6)
        assert method.process.active(Clock(step, 12, 4)) == {"ce", f"kl/{anchor}"}


def test_an_anchor_within_an_epoch_is_heard_as_well():
    method = build()[1]
    assert method.process.active(Clock(0, 12, 12)) == {"ce", *(f"kl/{name}" for name in ROUTE)}


def test_staged_is_a_run_each_of_one_student():
    anchors, stages = build(form="staged", ce=0.5, kl=0.5, temperature=2.0)
    assert [stage.name for stage in stages] == list(ROUTE)
    assert [stage.method.frozen["teacher"].network for stage in stages] == anchors
    assert len({id(stage.method.student()) for stage in stages}) == 1
    z = logits("student", "teacher")
    for stage in stages:
        expected = 0.5 * ce(z["student"]) + 0.5 * kl(z["student"], z["teacher"], 2.0)
        torch.testing.assert_close(total(stage.method, z), expected, rtol=1e-6, atol=1e-6)
