"""BAN: generations with seeds of their own, and the paper's two ablations of what a teacher knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods_tiny import LABELS, NOW, ce, kl, logits, losses, setting, total, trainer

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.methods.ban import ban, permuted
from limbeck.wiring import needs_teacher


def test_a_teacher_is_generation_zero_where_one_is_given():
    student, teacher = tiny(), tiny(12, seed=1)
    stages = ban(student, teacher, setting(), generations=2)
    assert [stage.name for stage in stages] == ["generation1", "generation2"]
    assert stages[0].method.student() is student
    assert stages[0].method.frozen["teacher"].network is teacher
    assert stages[1].method.frozen["teacher"].network is student


def test_without_a_teacher_generation_zero_learns_from_the_labels():
    assert not needs_teacher("ban")
    stages = ban(tiny(), None, setting(), generations=1)
    assert [stage.name for stage in stages] == ["generation0", "generation1"]
    assert list(stages[0].method.terms) == ["ce"]
    assert stages[1].method.frozen["teacher"].network is stages[0].method.student()


def test_generations_start_from_weights_of_their_own():
    stages = ban(tiny(), None, setting(seed=3))
    first = [next(stage.method.student().parameters()) for stage in stages]
    assert len(first) == 4
    assert not any(torch.equal(p, q) for i, p in enumerate(first) for q in first[:i])


def test_what_ships_is_the_last_generation(tmp_path: Path):
    stages = ban(tiny(), None, setting(), generations=1)
    run = trainer(stages, tmp_path)
    run.fit()
    assert run.method.student() is stages[1].method.student()
    assert run.method.deploy == "student"


@pytest.mark.parametrize("labels", [1.0, 0.0])
def test_total_is_unsoftened_kl_beside_the_labels(labels):
    z = logits("student", "teacher")
    (stage,) = ban(tiny(), tiny(seed=1), setting(), generations=1, ce=labels)
    expected = labels * ce(z["student"]) + kl(z["student"], z["teacher"], 1.0)
    torch.testing.assert_close(total(stage.method, z), expected, rtol=1e-6, atol=1e-6)


def test_cwtm_weighs_the_labels_by_how_sure_the_teacher_is():
    z = logits("student", "teacher")
    (stage,) = ban(tiny(), tiny(seed=1), setting(), generations=1, knowledge="cwtm")
    sure = z["teacher"].softmax(dim=1).max(dim=1).values
    each = -z["student"].log_softmax(dim=1)[torch.arange(8), LABELS]
    expected = (sure / sure.sum() * 8 * each).mean()
    torch.testing.assert_close(total(stage.method, z), expected, rtol=1e-6, atol=1e-6)
    assert torch.autograd.grad(expected, z["student"])[0].abs().max() > 0


def test_permuted_keeps_the_largest_in_place_and_the_others_as_a_set():
    z = logits("teacher")["teacher"].detach()
    order = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    mixed = permuted(z, order)
    assert torch.equal(mixed.argmax(dim=1), z.argmax(dim=1))
    assert torch.equal(mixed.amax(dim=1), z.amax(dim=1))
    assert torch.equal(mixed.sort(dim=1).values, z.sort(dim=1).values)
    assert not torch.equal(mixed, z)
    assert torch.equal(permuted(z, torch.arange(3).expand(8, 3)), z)


def test_dkpp_permutes_anew_at_every_step_and_alike_when_repeated():
    z = logits("student", "teacher")
    (stage,) = ban(tiny(), tiny(seed=1), setting(), generations=1, knowledge="dkpp")
    (twin,) = ban(tiny(), tiny(seed=1), setting(seed=1), generations=1, knowledge="dkpp")
    value, again, later, other = (
        losses(method, z, now)["dkpp"] for method, now in ((stage.method, NOW), (stage.method, NOW), (
            stage.method, replace(NOW, step=6)), (twin.method, NOW)))
    assert torch.equal(value, again)
    assert not torch.equal(value, later)
    assert not torch.equal(value, other)


def test_dkpp_keeps_as_much_entropy_in_the_target():
    z = logits("teacher")
    z["student"] = torch.zeros_like(z["teacher"]).requires_grad_()  # from uniform beliefs every order is as far
    (stage,) = ban(tiny(), tiny(seed=1), setting(), generations=1, knowledge="dkpp")
    expected = kl(z["student"], z["teacher"], 1.0)
    torch.testing.assert_close(losses(stage.method, z)["dkpp"], expected, rtol=1e-6, atol=1e-6)


def test_no_generation_is_refused():
    with pytest.raises(Mistake, match="a generation that is taught; got generations=0"):
        ban(tiny(), None, setting(), generations=0)
