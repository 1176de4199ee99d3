"""MLKD: levels, temperatures and two views, as executed and as meant."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import LABELS, NOW, ce, kl, logits, losses, setting, total
from torch import Tensor

from limbeck.contract.trial import batch, tiny
from limbeck.method import Method
from limbeck.methods.mlkd import mlkd

NAMES = ("student", "student-strong", "teacher", "teacher-strong")


def made(**options) -> tuple[Method, dict[str, Tensor]]:
    return mlkd(tiny(), tiny(12, seed=1), setting(), **options), logits(*NAMES)


def beliefs(z: Tensor, temperature: float) -> Tensor:
    return z.div(temperature).softmax(1)


def classes(s: Tensor, t: Tensor, temperature: float, rows: Tensor) -> Tensor:
    p, q = beliefs(t, temperature), beliefs(s, temperature)
    return ((q.T @ q - p.T @ p) ** 2)[rows].sum() / s.shape[1]


def samples(s: Tensor, t: Tensor, temperature: float, rows: Tensor) -> Tensor:
    p, q = beliefs(t, temperature), beliefs(s, temperature)
    return ((q @ q.T - p @ p.T) ** 2)[rows].sum() / len(s)


def zscored(z: Tensor) -> Tensor:
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)


@pytest.mark.parametrize(("options", "base", "share_ce", "share_kd"), [
    ({}, 4.0, 0.1, 0.9), ({"temperature": 1.0, "ce": 0.5, "kd": 0.5}, 1.0, 0.5, 0.5),
    ({"standardised": True, "temperature": 2.0, "kd": 9.0}, 2.0, 0.1, 9.0)])
def test_total_as_executed(options, base, share_ce, share_kd):
    method, z = made(**options)
    s, strong, t, t_strong = (z[name] for name in NAMES)
    look = zscored if options.get("standardised") else lambda x: x
    every, all_rows = (base, 3.0, 5.0, 2.0, 6.0), slice(None)
    weak = [kl(look(s), look(t), T) for T in every]
    levels = (sum(weak) / 2 + weak[3] + weak[4]
              + sum(kl(look(strong), look(t_strong), T) for T in (base, 3.0, 5.0))
              + sum(classes(s, t, T, all_rows) + samples(s, t, T, all_rows) for T in every) / 2)
    expected = share_ce * (ce(s) + ce(strong)) + share_kd * levels
    torch.testing.assert_close(total(method, z), expected, rtol=1e-6, atol=1e-6)


def test_as_executed_the_mask_is_the_share_of_those_no_surer_than_the_median():
    method, z = made()
    teacher = z["teacher"].detach().clone()
    before = losses(method, {**z, "teacher": teacher})["batch"]
    teacher[:5] = teacher[:1]  # five samples of which the teacher is equally sure
    share = (beliefs(teacher, 1).amax(1) <= beliefs(teacher, 1).amax(1).median()).double().mean()
    assert share >= 5 / 8
    after = losses(method, {**z, "teacher": teacher})["batch"]
    expected = share * sum(samples(z["student"], teacher, T, slice(None)) for T in (4.0, 3.0, 5.0, 2.0, 6.0))
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6)
    assert after != before


def test_total_of_the_clean_form_chooses_entries_in_both_views():
    method, z = made(form="clean")
    expected = 0.1 * (ce(z["student"]) + ce(z["student-strong"]))
    for view in ("", "-strong"):
        s, t = z[f"student{view}"], z[f"teacher{view}"]
        sure = beliefs(t, 1).amax(1).argsort()[4:]
        common = beliefs(t, 1).sum(0).argsort()[2:]
        for each in (4.0, 3.0, 5.0, 2.0, 6.0):
            levels = kl(s[sure], t[sure], each) / 2 + classes(s, t, each, common) + samples(s, t, each, sure)
            expected = expected + 0.9 * levels
    torch.testing.assert_close(total(method, z), expected, rtol=1e-6, atol=1e-6)


def test_the_student_looks_twice_and_the_teacher_feels_neither_look():
    method = mlkd(tiny(), tiny(12, seed=1), setting())
    assert method.views == ("strong",)
    images = batch(views=1)
    values = method(method.see(images, NOW), frozenset(method.terms))
    student = method.members["student"]
    expected = -student.logits(images.views[0]).log_softmax(1)[torch.arange(8), LABELS].mean()
    torch.testing.assert_close(values["ce-strong"], expected)
    values["kl-strong"].backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None for p in method.frozen["teacher-strong"].parameters())


@pytest.mark.parametrize(("form", "terms"), [
    ("as_executed", ["ce", "ce-strong", "kl", "class", "batch", "kl-strong"]),
    ("clean", ["ce", "ce-strong", "kl", "class", "batch", "kl-strong", "class-strong", "batch-strong"])])
def test_each_level_and_view_is_a_term_and_the_supervised_ones_are_not_searched(form, terms):
    method = mlkd(tiny(), tiny(12, seed=1), setting(), form=form)
    assert list(method.process.names) == terms
    assert list(method.searchable()) == terms[2:]
