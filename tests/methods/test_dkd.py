"""DKD: the answer's half and the other classes' half."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import LABELS, ce, logits, setting, total
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.dkd import dkd
from limbeck.seen import Clock

LATE = Clock(15, 20, 5)


def halves(s: Tensor, t: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, sample by sample."""
    target, others = [], []
    for z_s, z_t, y in zip(s / temperature, t / temperature, LABELS.tolist(), strict=True):
        q, p = z_s.softmax(0), z_t.softmax(0)
        target.append(p[y] * (p[y] / q[y]).log() + (1 - p[y]) * ((1 - p[y]) / (1 - q[y])).log())
        rest = [c for c in range(len(q)) if c != y]
        q, p = z_s[rest].softmax(0), z_t[rest].softmax(0)
        others.append((p * (p / q).log()).sum())
    return temperature**2 * torch.stack(target).mean(), temperature**2 * torch.stack(others).mean()


def zscored(z: Tensor) -> Tensor:
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7)


@pytest.mark.parametrize(("options", "alpha", "beta", "temperature"), [
    ({}, 1, 8, 4), ({"alpha": 0.5, "beta": 2.0, "temperature": 1.0}, 0.5, 2, 1)])
def test_total_is_the_task_and_both_halves(options, alpha, beta, temperature):
    method, z = dkd(tiny(), tiny(12, seed=1), setting(), **options), logits("student", "teacher")
    target, others = halves(z["student"], z["teacher"], temperature)
    torch.testing.assert_close(total(method, z, LATE), ce(z["student"]) + alpha * target + beta * others,
                               rtol=1e-6, atol=1e-6)


def test_logits_can_be_standardised_first():
    method = dkd(tiny(), tiny(12, seed=1), setting(), standardised=True, alpha=9, beta=72, temperature=2, ce=0.5)
    z = logits("student", "teacher")
    target, others = halves(zscored(z["student"]), zscored(z["teacher"]), 2)
    torch.testing.assert_close(total(method, z, LATE), 0.5 * ce(z["student"]) + 9 * target + 72 * others,
                               rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("warm_up", "step", "share"), [
    (1 / 12, 0, 0), (1 / 12, 10, 0.5), (1 / 12, 20, 1), (1 / 12, 240, 1), (0, 0, 1), (0.5, 60, 0.5)])
def test_both_weights_rise_together(warm_up, step, share):
    method = dkd(tiny(), tiny(12, seed=1), setting(), warm_up=warm_up)
    assert method.process.weights(Clock(step, 241, 1)).tolist() == pytest.approx([1, share, 8 * share])
