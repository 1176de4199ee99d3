"""ESKD: the teacher is heard until it is not."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import ce, kl, logits, setting, total

from limbeck.contract.trial import tiny
from limbeck.methods.eskd import eskd
from limbeck.seen import Clock


def test_total_is_kd_before_the_stop_and_the_labels_after():
    method, z = eskd(tiny(), tiny(12, seed=1), setting()), logits("student", "teacher")
    early, late = Clock(179, 240, 1), Clock(180, 240, 1)
    torch.testing.assert_close(total(method, z, early), 0.1 * ce(z["student"]) + 0.9 * kl(z["student"], z["teacher"]),
                               rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(total(method, z, late), ce(z["student"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("stop", "step", "heard"), [(0.25, 4, True), (0.25, 5, False), (1, 19, True), (0, 0, False)])
def test_where_it_stops_is_an_option(stop, step, heard):
    method = eskd(tiny(), tiny(12, seed=1), setting(), stop=stop, temperature=1.0, ce=0.5, kl=0.5)
    assert method.process.weights(Clock(step, 20, 5)).tolist() == ([0.5, 0.5] if heard else [1.0, 0.0])


def test_a_silent_teacher_is_not_computed():
    method = eskd(tiny(), tiny(12, seed=1), setting())
    assert method.process.active(Clock(14, 20, 5)) == {"ce", "kl"}
    assert method.process.active(Clock(15, 20, 5)) == {"ce"}
