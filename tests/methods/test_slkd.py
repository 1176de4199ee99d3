"""SLKD: the spec's totals, what the peers feel, any number of them, and the sequential form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from methods_tiny import NOW, ce, kl, logits, losses, setting, total, trainer
from torch import Tensor

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.members import Ensemble
from limbeck.method import Method, Stage
from limbeck.methods.slkd import slkd
from limbeck.seen import Seen


def build(**options) -> Method | list[Stage]:
    return slkd(tiny(), tiny(12, seed=1), setting(), **options)


def state(*networks) -> list[Tensor]:
    return [x.clone() for network in networks for x in network.state_dict().values()]


def same(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def peers_part(z: dict[str, Tensor], *, share: float, temperature: float) -> Tensor:
    return sum(share * ce(z[p]) + (1 - share) * kl(z[p], z["teacher"], temperature) for p in ("peer1", "peer2"))


@pytest.mark.parametrize(("share", "temperature", "options"), [
    (0.1, 4.0, {}), (0.5, 1.0, {"ce": 0.5, "kl": 0.5, "temperature": 1.0})], ids=["cifar", "imagenet"])
def test_total_is_that_of_the_released_code(share, temperature, options):
    z = logits("student", "teacher", "peer1", "peer2")
    fused = 0.5 * z["peer1"] + 0.5 * z["peer2"]
    expected = (share * ce(z["student"]) + (1 - share) * kl(z["student"], z["teacher"], temperature)
                + ce(z["student"]) + kl(z["student"], fused, temperature)
                + peers_part(z, share=share, temperature=temperature))
    torch.testing.assert_close(total(build(**options), z), expected, rtol=1e-6, atol=1e-6)


def test_labels_weigh_one_and_a_tenth_by_default():
    weights = dict(zip(build().process.names, build().process.weights(NOW).tolist(), strict=True))
    assert weights == pytest.approx({
        "ce": 1.1, "student/teacher": 0.9, "student/peers": 1.0, "peer1/ce": 0.1, "peer1/teacher": 0.9, "peer2/ce": 0.1,
        "peer2/teacher": 0.9})


def test_every_coefficient_is_where_the_formula_has_it():
    z = logits("student", "teacher", "peer1", "peer2")
    method = build(alpha=2.0, beta=3.0, ce=0.2, kl=0.7, peers_ce=0.4, peers_kl=0.6, fusion=[3, 1], temperature=2.0)
    fused = 0.75 * z["peer1"] + 0.25 * z["peer2"]
    student = 2 * (0.2 * ce(z["student"]) + 0.7 * kl(z["student"], z["teacher"], 2.0)) + 3 * (
        0.4 * ce(z["student"]) + 0.6 * kl(z["student"], fused, 2.0))
    peers = sum(0.2 * ce(z[p]) + 0.7 * kl(z[p], z["teacher"], 2.0) for p in ("peer1", "peer2"))
    torch.testing.assert_close(total(method, z), student + peers, rtol=1e-6, atol=1e-6)


def test_peers_feel_nothing_of_the_students_term():
    z = logits("student", "teacher", "peer1", "peer2")
    loss = losses(build(), z)["student/peers"]
    of_student, *of_peers = torch.autograd.grad(loss, [z["student"], z["peer1"], z["peer2"]], allow_unused=True)
    assert of_student.abs().max() > 0
    assert of_peers == [None, None]


def test_released_code_pulls_each_peer_with_half_the_slope_of_the_fused_target():
    z = logits("student", "teacher", "peer1", "peer2")
    found = torch.autograd.grad(losses(build(detach=False), z)["student/peers"], [z["peer1"], z["peer2"]])
    target, own = ((x / 4).softmax(dim=1) for x in (0.5 * (z["peer1"] + z["peer2"]), z["student"]))
    apart = target.log() - own.log()
    slope = 4 * target * (apart - (target * apart).sum(dim=1, keepdim=True)) / len(apart)
    for one in found:
        torch.testing.assert_close(one, 0.5 * slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_peers_each_drawn_for_itself(count):
    teacher = tiny(12, seed=1)
    method = slkd(tiny(), teacher, setting(seed=5), self_teachers=count)
    names = [f"peer{k}" for k in range(1, count + 1)]
    assert list(method.members) == ["student", "ensemble", *names]
    assert list(method.owners()) == ["student", *names]
    first = [next(network.parameters()) for network in (teacher, *(method.members[name] for name in names))]
    assert all(p.shape == first[0].shape for p in first)
    assert not any(torch.equal(p, q) for i, p in enumerate(first) for q in first[:i])
    z = logits("student", "teacher", *names)
    fused = torch.stack([z[name] for name in names]).mean(dim=0)
    torch.testing.assert_close(losses(method, z)["student/peers"], kl(z["student"], fused), rtol=1e-6, atol=1e-6)


def test_teacher_alone_is_kd_without_any_peer():
    method = build(supervision="teacher", self_teachers=0, form="sequential")
    assert list(method.members) == ["student"]
    z = logits("student", "teacher")
    expected = 0.1 * ce(z["student"]) + 0.9 * kl(z["student"], z["teacher"])
    torch.testing.assert_close(total(method, z), expected, rtol=1e-6, atol=1e-6)


def test_self_teachers_alone_still_learn_from_the_teacher():
    z = logits("student", "teacher", "peer1", "peer2")
    expected = (ce(z["student"]) + kl(z["student"], 0.5 * (z["peer1"] + z["peer2"]))
                + peers_part(z, share=0.1, temperature=4.0))
    torch.testing.assert_close(total(build(supervision="self_teachers"), z), expected, rtol=1e-6, atol=1e-6)


def test_sequential_totals_are_the_two_halves():
    z = logits("student", "teacher", "peer1", "peer2")
    first, second = build(form="sequential")
    together = total(first.method, z) + total(second.method, z)
    torch.testing.assert_close(together, total(build(), z), rtol=1e-6, atol=1e-6)
    assert [first.name, second.name] == ["self_teachers", "student"]


def test_sequential_trains_the_peers_then_the_student_from_them_frozen(tmp_path: Path):
    stages = build(form="sequential")
    first, second = (stage.method for stage in stages)
    student, peers = second.members["student"], [first.members["peer1"], first.members["peer2"]]
    assert [second.frozen[name].network for name in ("peer1", "peer2")] == peers
    assert list(second.owners()) == ["student"]
    assert second.student() is student
    start = state(student, *peers)
    trainer(stages[:1], tmp_path / "one").fit()
    between = state(student, *peers)
    own = len(student.state_dict())
    assert all(same(start[:own], between[:own]))
    assert not any(same([x for x in start[own:] if x.ndim > 1], [x for x in between[own:] if x.ndim > 1]))
    trainer(stages[1:], tmp_path / "two").fit()
    after = state(student, *peers)
    assert not all(same(between[:own], after[:own]))
    assert all(same(between[own:], after[own:]))


@pytest.mark.parametrize(("options", "message"), [
    ({"self_teachers": 0}, "supervision=both needs one self-teacher or more; got self_teachers=0"),
    ({"fusion": [1.0]}, r"one weight for each of \['peer1.logits', 'peer2.logits'\].*got \[1.0\]"),
    ({"fusion": [0.0, 0.0]}, "not all 0; got"),
    ({"fusion": [2.0, -1.0]}, "none below 0"),
])
def test_peers_that_do_not_fit_are_told(options, message):
    with pytest.raises(Mistake, match=message):
        build(**options)


def test_an_ensemble_averages_any_tap():
    seen = Seen(batch(), NOW, {"both": Ensemble(["a.pooled", "b.pooled"], [1, 3], tap="pooled")},
                known={"a": {"pooled": torch.zeros(2, 3)}, "b": {"pooled": torch.full((2, 3), 4.0)}})
    assert torch.equal(seen["both.pooled"], torch.full((2, 3), 3.0))
