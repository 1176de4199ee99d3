"""CC: correlations in linear embeddings of both pooled features."""

from __future__ import annotations

import math

import pytest
import torch
from features_tiny import features, parameters, total, weights_of
from methods_tiny import ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.cc import cc


def by_code(s: Tensor, t: Tensor) -> Tensor:
    gaps = (s - t).abs()
    return torch.stack([(gaps[i] * gaps[i + 1]).sum() for i in range(len(s) - 1)]).mean()


def by_kernel(s: Tensor, t: Tensor, gamma: float | None) -> Tensor:
    def kernel(e: Tensor) -> Tensor:
        x = torch.stack([torch.stack([a @ b for b in e]) for a in e])
        return x if gamma is None else math.exp(-2 * gamma) * (1 + 2 * gamma * x + (2 * gamma * x) ** 2 / 2)

    return (kernel(s) - kernel(t)).square().sum().sqrt() / len(s) ** 2


@pytest.mark.parametrize("mode", ["code", "gaussian", "bilinear"])
def test_total_is_the_task_and_the_distance_of_embeddings(mode):
    student, teacher = tiny(4), tiny(6, seed=1)
    known, method = features(student, teacher, ["pooled"]), cc(student, teacher, setting(), mode=mode, gamma=0.3)
    found, term = total(method, known), method.terms["correlation"]
    s, t = (known[name]["pooled"] @ linear.weight.T + linear.bias
            for name, linear in (("student", term.connect), ("teacher", term.connect_source)))
    gap = by_code(s, t) if mode == "code" else by_kernel(s, t, 0.3 if mode == "gaussian" else None)
    torch.testing.assert_close(found, ce(known["student"]["logits"]) + 0.02 * gap, rtol=1e-6, atol=1e-6)


def test_both_embeddings_learn_and_belong_to_the_student():
    student, teacher = tiny(4), tiny(6, seed=1)
    method = cc(student, teacher, setting(), weight=0.003, mode="bilinear", width=16)
    assert parameters(method.terms["correlation"]) == (8 * 16 + 16) + (12 * 16 + 16)
    assert len(method.owners()["student"]) == len(list(student.parameters())) + 4
    assert weights_of(method)["correlation"] == pytest.approx(0.003)
    total(method, features(student, teacher, ["pooled"])).backward()
    assert all(p.grad.abs().sum() > 0 for p in method.terms["correlation"].connect_source.parameters())
