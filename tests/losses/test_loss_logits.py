"""Losses of logits against sums over samples and classes, written from the formulas."""

import math

import pytest
import torch
from torch import Tensor

from limbeck.losses import (
    batch_correlation,
    class_correlation,
    dist,
    dkd,
    hard_ce,
    nontarget_kl,
    soft_cross_entropy,
    soft_kl,
    standardise,
    standardised_kl,
    target_kl,
)

LABELS = torch.tensor([0, 3, 2, 2])


def beliefs(row: Tensor, temperature: float) -> Tensor:
    powers = [(z / temperature).exp() for z in row]
    return torch.stack([power / sum(powers) for power in powers])


def kl(target: Tensor, p: Tensor) -> Tensor:
    return sum(a * (a.log() - b.log()) for a, b in zip(target, p, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_soft_kl(agree, draw, temperature, reduction):
    def plain(student, teacher):
        total = sum(kl(beliefs(t, temperature), beliefs(s, temperature)) for s, t in zip(student, teacher, strict=True))
        return temperature**2 * total / (4 if reduction == "batchmean" else 20)

    agree(lambda s, t: soft_kl(s, t, temperature=temperature, reduction=reduction), plain, draw(4, 5), draw(4, 5),
          learn=(0, 1))


def test_soft_kl_has_the_gradient_of_hinton_s_paper(draw):
    student, teacher = draw(4, 5).requires_grad_(), draw(4, 5)
    (gradient,) = torch.autograd.grad(soft_kl(student, teacher, temperature=3.0), student)
    torch.testing.assert_close(gradient, 3.0 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 4)


def test_soft_cross_entropy(agree, draw):
    def plain(student, teacher):
        return sum(-(beliefs(t, 3.0) * beliefs(s, 3.0).log()).sum() for s, t in zip(student, teacher, strict=True)) / 4

    agree(soft_cross_entropy, plain, draw(4, 5), draw(4, 5), learn=(0, 1))


def test_soft_cross_entropy_is_soft_kl_without_its_factor_for_the_student(draw):
    student, teacher = draw(4, 5).requires_grad_(), draw(4, 5)
    (ours,) = torch.autograd.grad(soft_cross_entropy(student, teacher, temperature=2.0), student)
    (theirs,) = torch.autograd.grad(soft_kl(student, teacher, temperature=2.0), student)
    torch.testing.assert_close(4 * ours, theirs)


def test_hard_ce(agree, draw):
    def plain(student, teacher):
        picks = [max(range(5), key=lambda c, row=row: row[c].item()) for row in teacher]
        return sum(-beliefs(s, 1.0)[pick].log() for s, pick in zip(student, picks, strict=True)) / 4

    agree(hard_ce, plain, draw(4, 5), draw(4, 5))


def standardised(row: Tensor) -> Tensor:
    mean = sum(row) / len(row)
    deviation = (sum((z - mean) ** 2 for z in row) / (len(row) - 1)).sqrt()
    return torch.stack([(z - mean) / (deviation + 1e-7) for z in row])


def test_standardise(agree, draw):
    weights = draw(4, 5)
    agree(lambda z, w: (standardise(z) * w).sum(),
          lambda z, w: sum((standardised(row) * v).sum() for row, v in zip(z, w, strict=True)), draw(4, 5), weights)


def test_standardised_kl(agree, draw):
    def plain(student, teacher):
        pairs = zip(student, teacher, strict=True)
        return 4 * sum(kl(beliefs(standardised(t), 2.0), beliefs(standardised(s), 2.0)) for s, t in pairs) / 4

    agree(standardised_kl, plain, draw(4, 5), draw(4, 5), learn=(0, 1))


def test_equal_logits_are_standardised_to_zero_and_feel_nothing(draw):
    student = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    assert not standardise(student).any()
    (gradient,) = torch.autograd.grad(standardised_kl(student, draw(4, 5)), student)
    assert not gradient.any()


def test_target_kl(agree, draw):
    def plain(student, teacher):
        total = 0.0
        for s, t, y in zip(student, teacher, LABELS, strict=True):
            p, q = beliefs(s, 4.0)[y], beliefs(t, 4.0)[y]
            total = total + q * (q.log() - p.log()) + (1 - q) * ((1 - q).log() - (1 - p).log())
        return 16 * total / 4

    agree(lambda s, t: target_kl(s, t, LABELS), plain, draw(4, 5), draw(4, 5), learn=(0, 1))


def test_nontarget_kl(agree, draw):
    def plain(student, teacher):
        total = 0.0
        for s, t, y in zip(student, teacher, LABELS.tolist(), strict=True):
            rest = [c for c in range(5) if c != y]
            total = total + kl(beliefs(t[rest], 4.0), beliefs(s[rest], 4.0))
        return 16 * total / 4

    agree(lambda s, t: nontarget_kl(s, t, LABELS), plain, draw(4, 5), draw(4, 5), learn=(0, 1))


def test_nontarget_kl_agrees_with_the_authors_mask_of_a_thousand(draw):
    student, teacher = draw(4, 5), draw(4, 5)
    mask = 1000.0 * torch.nn.functional.one_hot(LABELS, 5)
    log_s, log_t = (student / 4 - mask).log_softmax(1), (teacher / 4 - mask).log_softmax(1)
    theirs = 16 * (log_t.exp() * (log_t - log_s)).sum() / 4
    torch.testing.assert_close(nontarget_kl(student, teacher, LABELS), theirs)


def test_dkd_weighs_its_halves_and_kd_is_one_of_its_weightings(draw):
    student, teacher = 3 * draw(1, 5), 3 * draw(1, 5)
    labels = torch.tensor([2])
    weighed = dkd(student, teacher, labels, alpha=0.5, beta=3.0, temperature=2.0)
    sure, others = (half(student, teacher, labels, temperature=2.0) for half in (target_kl, nontarget_kl))
    torch.testing.assert_close(weighed, 0.5 * sure + 3.0 * others)
    doubt = 1 - (teacher / 2).softmax(1)[0, 2].item()
    torch.testing.assert_close(dkd(student, teacher, labels, alpha=1.0, beta=doubt, temperature=2.0),
                               soft_kl(student, teacher, temperature=2.0))


def test_target_kl_sees_a_teacher_so_sure_that_its_doubt_rounds_to_zero():
    teacher, student = torch.tensor([[400.0, 0.0]]), torch.tensor([[0.0, 400.0]])
    value = target_kl(student, teacher, torch.tensor([0]), temperature=1.0)
    torch.testing.assert_close(value, torch.tensor(400.0))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - sum(a) / len(a), b - sum(b) / len(b)
    return sum(a * b) / (sum(a * a).sqrt() * sum(b * b).sqrt() + 1e-8)


def test_dist(agree, draw):
    def plain(student, teacher):
        s = torch.stack([beliefs(row, 2.0) for row in student])
        t = torch.stack([beliefs(row, 2.0) for row in teacher])
        rows = 1 - sum(correlation(s[n], t[n]) for n in range(4)) / 4
        columns = 1 - sum(correlation(s[:, c], t[:, c]) for c in range(5)) / 5
        return 4 * (2.0 * rows + 0.5 * columns)

    agree(lambda s, t: dist(s, t, beta=2.0, gamma=0.5, temperature=2.0), plain, draw(4, 5), draw(4, 5), learn=(0, 1))


def test_class_and_batch_correlation(agree, draw):
    def gaps(student, teacher, over):
        s = torch.stack([beliefs(row, 4.0) for row in student])
        t = torch.stack([beliefs(row, 4.0) for row in teacher])
        s, t = (s.T, t.T) if over == "classes" else (s, t)
        return sum((s[i] @ s[j] - t[i] @ t[j]) ** 2 for i in range(len(s)) for j in range(len(s))) / len(s)

    agree(class_correlation, lambda s, t: gaps(s, t, "classes"), 9 * draw(4, 5), 9 * draw(4, 5), learn=(0, 1))
    agree(batch_correlation, lambda s, t: gaps(s, t, "samples"), 9 * draw(4, 5), 9 * draw(4, 5), learn=(0, 1))


def test_hard_ce_of_an_undecided_student_is_the_logarithm_of_the_classes(draw):
    torch.testing.assert_close(hard_ce(torch.zeros(4, 5), draw(4, 5).float()), torch.tensor(math.log(5)))
