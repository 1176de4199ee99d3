"""AB: neurons on and off as the teacher's, before the task or beside it."""

from __future__ import annotations

import pytest
import torch
from features_tiny import convolved, features, normed, parameters, total, weights_of
from methods_tiny import NOW, ce, kl, setting
from torch import Tensor

from limbeck.connectors import AsMap
from limbeck.contract.trial import tiny
from limbeck.methods.ab import ab

BEFORE = ["stage1.pre", "stage2.pre", "stage3.pre"]


def boundary(student: Tensor, teacher: Tensor) -> Tensor:
    """Of one batch, entry by entry as the paper has it."""
    off = (student > -1) & (teacher <= 0)
    on = (student <= 1) & (teacher > 0)
    return ((student + 1) ** 2 * off + (student - 1) ** 2 * on).sum() / len(student)


def test_the_first_stages_total_is_the_boundaries_deepening():
    student, teacher = tiny(), tiny(12, seed=1)
    first, then = ab(student, teacher, setting())
    known = features(student, teacher, BEFORE)
    found, expected = total(first.method, known), 0
    for i, tap in enumerate(BEFORE):
        connector = first.method.terms[tap.removesuffix(".pre")].connect
        expected = expected + 3e-3 / 2 ** (2 - i) * boundary(normed(convolved(known["student"][tap], connector[1])),
                                                             known["teacher"][tap])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert first.method.process.names == ("stage1", "stage2", "stage3")
    assert (first.length, first.schedule.kind, then.length, then.schedule) == (1 / 8, "constant", 1, None)
    assert first.method.student() is then.method.student() is student


def test_the_second_stage_is_plain_ce_or_kl_as_in_the_authors_script():
    student, teacher = tiny(), tiny(12, seed=1)
    known = features(student, teacher, [])
    z, target = known["student"]["logits"], known["teacher"]["logits"]
    torch.testing.assert_close(total(ab(student, teacher, setting())[1].method, known), ce(z), rtol=1e-6, atol=1e-6)
    by_kl = ab(student, teacher, setting(), ce=0, kl=1)[1].method
    assert by_kl.process.active(NOW) == {"kl"}
    torch.testing.assert_close(total(by_kl, known), kl(z, target, 3.0), rtol=1e-6, atol=1e-6)


def test_joint_has_both_at_once():
    method = ab(tiny(), tiny(12), setting(), form="joint", weight=4.0, ce=0.5, kl=0.25)
    assert weights_of(method) == {"ce": 0.5, "stage1": 1, "stage2": 2, "stage3": 4, "kl": 0.25}


def test_connectors_are_there_only_where_shapes_differ():
    first, _ = ab(tiny(), tiny(8, seed=1), setting())
    assert all(type(term.connect) is AsMap for term in first.method.terms.values())
    first, _ = ab(tiny(), tiny(12), setting())
    assert [parameters(first.method.terms[f"stage{i}"]) for i in (1, 2, 3)] == [
        8 * 12 + 12 + 24, 8 * 12 + 12 + 24, 16 * 24 + 24 + 48]
    assert not any(isinstance(part, torch.nn.ReLU) for part in first.method.terms.modules())


@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_a_margin_is_kept(margin):
    student, teacher = tiny(), tiny(8, seed=1)
    first, _ = ab(student, teacher, setting(), margin=margin, weight=1.0)
    known = features(student, teacher, BEFORE)
    known["student"] = {tap: x.sign() * margin * 1.01 for tap, x in known["teacher"].items()}
    assert total(first.method, known) == 0
    known["student"] = {tap: 0.98 * x for tap, x in known["student"].items()}
    assert total(first.method, known) > 0
