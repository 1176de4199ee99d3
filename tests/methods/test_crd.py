"""CRD: embeddings told apart by two memories."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from features_tiny import Known, features, parameters
from methods_tiny import ce
from torch import Tensor

from limbeck.contract.trial import batch, split, tiny
from limbeck.errors import Mistake
from limbeck.method import Method, Setting
from limbeck.methods import crd as file
from limbeck.methods.crd import crd
from limbeck.seen import Clock, Seen
from limbeck.tasks.classification import Classification

NOW = Clock(5, 20, 10)
LABELS = split(40).targets


def setting(rows: Tensor | None = None, labels: Tensor | None = LABELS, seed: int = 0) -> Setting:
    """A job of 40 labelled images, of which some may be held out."""
    rows = torch.arange(40) if rows is None else rows
    return Setting(Classification(), tuple("abcd"), labels, rows, batch(2), seed)


def made(job: Setting | None = None, **options: float) -> tuple[Method, Known]:
    """The method in float64, and features in place of its networks."""
    student, teacher = tiny(4), tiny(6, seed=1)
    torch.manual_seed(0)
    method = crd(student, teacher, job or setting(), **{"negatives": 12, **options}).double()
    return method, features(student, teacher, ["pooled"])


def seen(method: Method, known: Known, now: Clock = NOW) -> Seen:
    return method.see(batch(), now, known=known)


def embedded(method: Method, known: Known) -> dict[str, Tensor]:
    linear = {side: getattr(method.members["embedding"], side) for side in ("student", "teacher")}
    raw = {side: known[side]["pooled"] @ layer.weight.T + layer.bias for side, layer in linear.items()}
    return {side: torch.stack([row / row.norm() for row in rows]) for side, rows in raw.items()}


def negatives(method: Method, now: Clock = NOW, own: Tensor | None = None) -> Tensor:
    return method.terms["contrast"]._negatives(torch.arange(8) if own is None else own, now)


def plain(method: Method, known: Known, constants: Tensor | None, temperature: float = 0.07,
          images: int = 40) -> tuple[Tensor, Tensor]:
    """Both directions' loss by the formula, and the constants, which are the scores' own where none are given."""
    embeddings, drawn, term = embedded(method, known), negatives(method), method.terms["contrast"]
    losses, found = [], []
    for direction, (side, other) in enumerate((("student", "teacher"), ("teacher", "student"))):
        memory = getattr(term, other)
        exps = torch.stack([torch.stack([(embeddings[side][b] @ memory[k] / temperature).exp() for k in (b, *row)])
                            for b, row in enumerate(drawn.tolist())])
        z = exps.detach().mean() * images if constants is None else constants[direction]
        found.append(z)
        scores, c = exps / z, drawn.shape[1] / images
        loss = (scores[:, 0] / (scores[:, 0] + c + 1e-7)).log().sum() + (c / (scores[:, 1:] + c + 1e-7)).log().sum()
        losses.append(-loss / 8)
    return torch.stack(losses).sum(), torch.stack(found)


@pytest.mark.parametrize(("options", "weight", "temperature"), [
    ({}, 0.8, 0.07), ({"weight": 2.0, "temperature": 0.5}, 2, 0.5)])
def test_total_is_the_task_and_both_directions(options, weight, temperature):
    method, known = made(**options)
    values = method(seen(method, known), method.process.active(NOW))
    loss, _ = plain(method, known, None, temperature)
    torch.testing.assert_close(values["contrast"], loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(values["ce"], ce(known["student"]["logits"]), rtol=1e-6, atol=1e-6)
    assert method.process._weights == {"ce": 1, "contrast": weight}


def test_the_constants_are_those_of_the_first_step():
    method, known = made()
    expected, constants = plain(method, known, None)
    now = seen(method, known)
    torch.testing.assert_close(method(now, frozenset({"contrast"}))["contrast"], expected, rtol=1e-6, atol=1e-6)
    assert not method.terms["contrast"].constants.any()  # forward changes nothing
    method.after_step(now)
    torch.testing.assert_close(method.terms["contrast"].constants, constants, rtol=1e-6, atol=1e-6)
    later, _ = plain(method, known, constants)
    now = seen(method, known)
    torch.testing.assert_close(method(now, frozenset({"contrast"}))["contrast"], later, rtol=1e-6, atol=1e-6)
    method.after_step(now)
    torch.testing.assert_close(method.terms["contrast"].constants, constants, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_a_step_moves_the_batchs_rows_of_memory(momentum):
    method, known = made(momentum=momentum)
    term = method.terms["contrast"]
    before, embeddings = {side: getattr(term, side).clone() for side in ("student", "teacher")}, embedded(method, known)
    now = seen(method, known)
    method(now, frozenset({"contrast"}))
    method.after_step(now)
    for side, old in before.items():
        moved = momentum * old[:8] + (1 - momentum) * embeddings[side]
        moved = moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(getattr(term, side)[:8], moved, rtol=1e-6, atol=1e-6)
        assert torch.equal(getattr(term, side)[8:], old[8:])


def test_a_term_that_was_left_out_remembers_nothing():
    method, known = made()
    before, now = method.terms["contrast"].student.clone(), seen(method, known)
    method(now, frozenset({"ce"}))
    method.after_step(now)
    assert torch.equal(method.terms["contrast"].student, before)
    assert "embedding" not in now._outputs


def test_memories_start_uniform_and_both_embeddings_learn():
    method, known = made(width=16)
    term, embedding = method.terms["contrast"], method.members["embedding"]
    assert term.student.shape == term.teacher.shape == (40, 16)
    assert term.student.abs().max() == pytest.approx((3 / 16) ** 0.5, rel=0.05)
    assert parameters(embedding) == (8 * 16 + 16) + (12 * 16 + 16)
    method(seen(method, known), frozenset({"contrast"}))["contrast"].backward()
    assert all(p.grad.abs().sum() > 0 for p in embedding.parameters())
    assert method.owners()["embedding"] == list(embedding.parameters())


def test_negatives_are_of_other_classes_and_none_comes_twice():
    method, _ = made()
    drawn = negatives(method, own=torch.arange(40))
    assert drawn.shape == (40, 12)
    assert LABELS[drawn].ne(LABELS[:, None]).all()
    assert all(len(set(row)) == 12 for row in drawn.tolist())
    counts = torch.stack([negatives(method, Clock(step, 999, 999), torch.arange(40)) for step in range(200)])
    counts = counts.flatten().bincount(minlength=40)
    odds = 200 * torch.tensor([sum(12 / (y != LABELS).sum() for y in LABELS if y != own) for own in LABELS])
    assert ((counts - odds).abs() < 6 * odds.sqrt()).all()


def test_negatives_depend_on_seed_step_and_rank_alone(monkeypatch):
    method, _ = made()
    state, first = torch.get_rng_state(), negatives(method)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(9)
    assert torch.equal(negatives(method), first)
    assert not torch.equal(negatives(method, Clock(6, 20, 10)), first)
    assert not torch.equal(negatives(made(setting(seed=1))[0]), first)
    monkeypatch.setattr(file, "rank", lambda: 1)
    assert not torch.equal(negatives(method), first)


def test_where_other_classes_are_few_all_are_negatives():
    method, _ = made(negatives=16384)
    most = int(LABELS.bincount().max())
    assert method.terms["contrast"].negatives == 40 - most
    own = LABELS.eq(LABELS.bincount().argmax()).nonzero()[0]
    assert set(negatives(method, own=own)[0].tolist()) == set(LABELS.ne(LABELS[own]).nonzero()[:, 0].tolist())


def test_held_out_images_are_in_no_memory():
    rows = torch.tensor([*range(8), 31, 22, 13])
    method, known = made(setting(rows), negatives=4)
    term = method.terms["contrast"]
    assert term.student.shape == (11, 128)
    assert term._places(torch.tensor([31, 0, 13, 22])).tolist() == [10, 0, 8, 9]
    assert term.labels.tolist() == LABELS[rows.sort().values].tolist()
    loss, _ = plain(method, known, None, images=11)
    values = method(seen(method, known), frozenset({"contrast"}))
    torch.testing.assert_close(values["contrast"], loss, rtol=1e-6, atol=1e-6)


def test_unlabelled_images_are_told_from_all_others():
    method, _ = made(setting(labels=None), negatives=100)
    assert set(negatives(method)[3].tolist()) == set(range(40)) - {3}


def test_all_ranks_images_move_the_memory_and_set_the_constants(monkeypatch):
    method, known = made()
    other, now = replace(batch(seed=1), index=torch.arange(20, 28)), seen(method, known)
    theirs = torch.randn(8, 128, dtype=torch.float64)
    term, embeddings = method.terms["contrast"], embedded(method, known)
    old = {side: getattr(term, side).clone() for side in ("student", "teacher")}
    monkeypatch.setattr(file, "gathered", lambda x: torch.cat([x, other.index if x.ndim == 1 else theirs]))
    monkeypatch.setattr(file, "mean_over_ranks", lambda tensors: [x + 7 for x in tensors])
    _, constants = plain(method, known, None)
    method(now, frozenset({"contrast"}))
    method.after_step(now)
    for side in ("student", "teacher"):
        moved = (old[side][[*range(8), *range(20, 28)]] + torch.cat([embeddings[side], theirs])) / 2
        torch.testing.assert_close(getattr(term, side)[[*range(8), *range(20, 28)]],
                                   moved / moved.norm(dim=1, keepdim=True), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(term.constants, constants + 7, rtol=1e-6, atol=1e-6)


def test_images_of_one_class_are_refused():
    with pytest.raises(Mistake, match=r"images from those of other classes; all 40 training images are of one. Give"):
        made(setting(labels=torch.zeros(40, dtype=torch.int64)))
