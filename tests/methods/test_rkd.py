"""RKD: distances and angles of pooled features."""

from __future__ import annotations

import torch
from features_tiny import features, losses, total, weights_of
from methods_tiny import NOW, ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.rkd import rkd


def huber(a: Tensor, b: Tensor) -> Tensor:
    gap = (a - b).abs()
    return torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()


def distances(e: Tensor) -> Tensor:
    d = torch.stack([torch.stack([(a - b).norm() for b in e]) for a in e])
    return d / d[d > 0].mean()


def angles(e: Tensor) -> Tensor:
    def cosine(i: int, j: int, k: int) -> Tensor:
        u, v = e[j] - e[i], e[k] - e[i]
        return u @ v / (u.norm() * v.norm()) if i not in (j, k) else torch.zeros((), dtype=e.dtype)

    n = range(len(e))
    return torch.stack([cosine(i, j, k) for i in n for j in n for k in n])


def test_total_is_the_task_25_distances_and_50_angles():
    student, teacher = tiny(4), tiny(6, seed=1)
    known = features(student, teacher, ["pooled"])
    s, t = known["student"]["pooled"], known["teacher"]["pooled"]
    relations = 25 * huber(distances(s), distances(t)) + 50 * huber(angles(s), angles(t))
    expected = ce(known["student"]["logits"]) + relations
    torch.testing.assert_close(total(rkd(student, teacher, setting()), known), expected, rtol=1e-6, atol=1e-6)


def test_either_half_has_its_weight_and_can_be_left_out():
    student, teacher = tiny(4), tiny(6, seed=1)
    assert weights_of(rkd(student, teacher, setting(), distance=1, angle=2)) == {"ce": 1, "distance": 1, "angle": 2}
    method = rkd(student, teacher, setting(), angle=0)
    assert method.process.active(NOW) == {"ce", "distance"}
    assert losses(method, features(student, teacher, ["pooled"])).keys() == {"ce", "distance"}
