"""PKT: probabilities of being neighbours, by pooled features."""

from __future__ import annotations

import torch
from features_tiny import features, total, weights_of
from methods_tiny import ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.pkt import pkt


def neighbours(e: Tensor) -> Tensor:
    near = torch.stack([torch.stack([(a @ b / (a.norm() * b.norm()) + 1) / 2 for b in e]) for a in e])
    return near / near.sum(1, keepdim=True)


def test_total_is_the_task_and_30000_divergences():
    student, teacher = tiny(4), tiny(6, seed=1)
    known = features(student, teacher, ["pooled"])
    p, q = neighbours(known["teacher"]["pooled"]), neighbours(known["student"]["pooled"])
    expected = ce(known["student"]["logits"]) + 30000 * (p * ((p + 1e-7) / (q + 1e-7)).log()).mean()
    torch.testing.assert_close(total(pkt(student, teacher, setting()), known), expected, rtol=1e-6, atol=1e-6)


def test_the_weight_is_an_option():
    assert weights_of(pkt(tiny(), tiny(12), setting(), weight=2.0)) == {"ce": 1, "neighbours": 2}
