"""SP: similarities of a batch's last maps."""

from __future__ import annotations

import pytest
import torch
from features_tiny import features, total
from methods_tiny import ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.sp import sp


def similarities(x: Tensor) -> Tensor:
    rows = [torch.stack([(a * b).sum() for b in x]) for a in x]
    return torch.stack([row / row.norm() for row in rows])


@pytest.mark.parametrize("weight", [3000.0, 7.0])
def test_total_is_the_task_and_the_last_stages_distance(weight):
    student, teacher = tiny(4), tiny(6, seed=1)
    known = features(student, teacher, ["stage3"])
    method = sp(student, teacher, setting(), weight=weight) if weight == 7.0 else sp(student, teacher, setting())
    gap = similarities(known["student"]["stage3"]) - similarities(known["teacher"]["stage3"])
    expected = ce(known["student"]["logits"]) + weight * gap.square().sum() / 64
    torch.testing.assert_close(total(method, known), expected, rtol=1e-6, atol=1e-6)


def test_a_transformers_last_tokens_are_a_map_without_the_class_token():
    student, teacher = tiny(kind="vit"), tiny(6, seed=1)
    method = sp(student, teacher, setting())
    assert method.terms["similarity"].reads == ("student.stage4", "teacher.stage3")
    known = features(student, teacher, ["stage4"], ["stage3"])
    assert known["student"]["stage4"].shape[1:] == (8, 4, 4)
    gap = similarities(known["student"]["stage4"]) - similarities(known["teacher"]["stage3"])
    expected = ce(known["student"]["logits"]) + 3000 * gap.square().sum() / 64
    torch.testing.assert_close(total(method, known), expected, rtol=1e-6, atol=1e-6)
