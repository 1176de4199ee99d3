"""NST: channels as patterns over places, the student's set of them against the teacher's."""

from __future__ import annotations

import torch
from features_tiny import features, total
from methods_tiny import ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.nst import nst


def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """Of one sample's channels (C, H, W), pair by pair."""
    s, t = ([channel.flatten() / channel.norm() for channel in maps] for maps in (student, teacher))

    def kernel(some: list[Tensor], others: list[Tensor]) -> Tensor:
        return torch.stack([(a @ b) ** 2 for a in some for b in others]).mean()

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def test_total_is_the_task_and_the_discrepancy_of_every_stage():
    student, teacher = tiny(4), tiny(6, seed=1)
    known = features(student, teacher, stages := ["stage1", "stage2", "stage3"])
    expected = ce(known["student"]["logits"])
    for stage in stages:
        pairs = zip(known["student"][stage], known["teacher"][stage], strict=True)
        expected = expected + 50 * torch.stack([discrepancy(s, t) for s, t in pairs]).mean()
    torch.testing.assert_close(total(nst(student, teacher, setting()), known), expected, rtol=1e-6, atol=1e-6)


def test_every_stage_has_a_term_of_the_same_weight():
    method = nst(tiny(), tiny(12), setting(), weight=3.0)
    assert method.process.names == ("ce", "stage1", "stage2", "stage3")
    assert [term.reads for name, term in method.terms.items() if name != "ce"] == [
        (f"student.stage{i}", f"teacher.stage{i}") for i in (1, 2, 3)]
    assert method.process._weights["stage2"] == 3.0
