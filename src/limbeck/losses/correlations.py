"""Distances between classifiers' logits that compare patterns over classes and over the batch, not sample by sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import NO_SOFTENING, require_positive, require_same_shape


def dist(student: Tensor, teacher: Tensor, *, beta: float = 1.0, gamma: float = 1.0,
         temperature: float = 1.0) -> Tensor:
    """How little two classifiers' beliefs correlate, over the classes of a sample and over the batch (DIST).

    With p = softmax(z / T), an N × C matrix, and ρ Pearson's correlation of two vectors,
        loss = T^2 [beta (1 - mean_n ρ(row n of both)) + gamma (1 - mean_c ρ(column c of both))],
        ρ(a, b) = <a - mean a, b - mean b> / (|a - mean a| |b - mean b| + 1e-8).

    Args:
        student: Logits, (N, C). Gradients flow here, none through a row or column of equal beliefs.
        teacher: Logits, (N, C). Gradients would flow here too.
        beta: Weight of the rows: how the classes of a sample relate.
        gamma: Weight of the columns: how the samples of a batch relate in a class. It wants a batch of some size: in
            a batch of one it is a constant.
        temperature: T > 0, in units of logits.

    Returns:
        Scalar, without unit, in T^2 (beta + gamma) [0, 2]; unchanged when a constant is added to any row.

    Raises:
        ValueError: If the shapes disagree or the temperature is not positive.

    Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536, and the
    authors' code at T = 1; T^2 as in mmrazor. There equal beliefs (a head that starts at zero has them) get up to 1e8
    times the gradient. For dense logits the authors read every pixel as a sample.
    """
    s, t = _probabilities("dist", student, teacher, temperature)
    rows, columns = 1 - _pearson(s, t, 1).mean(), 1 - _pearson(s, t, 0).mean()
    return temperature**2 * (beta * rows + gamma * columns)


def class_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0,
                      counted: Tensor | None = None) -> Tensor:
    """Squared difference of which classes two classifiers confuse over a batch (MLKD, class level).

    With p = softmax(z / T), an N × C matrix, and M = p^T p,
        loss = sum_ij (M^student_ij - M^teacher_ij)^2 / C.

    Args:
        student: Logits, (N, C). Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        temperature: T > 0, in units of logits.
        counted: Which classes' rows of M are summed, (C,), bool; None sums all. C stays the number of all classes.

    Returns:
        Scalar, without unit; never negative; unchanged when a constant is added to any row. It grows with the square of
        the batch, as M sums over it. Memory O(C^2).

    Raises:
        ValueError: If the shapes disagree or the temperature is not positive.

    Source: Jin et al., Multi-Level Logit Distillation, CVPR 2023, and the authors' code, whose mask of classes scales
    the sum over all of them (see the method `mlkd`). Its instance level is `soft_kl`.
    """
    s, t = _probabilities("class_correlation", student, teacher, temperature)
    return _summed(s.mT @ s - t.mT @ t, counted)


def batch_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0,
                      counted: Tensor | None = None) -> Tensor:
    """Squared difference of which samples of a batch two classifiers take for alike (MLKD, batch level).

    With p = softmax(z / T), an N × C matrix, and G = p p^T,
        loss = sum_ij (G^student_ij - G^teacher_ij)^2 / N.

    Args:
        student: Logits, (N, C). Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        temperature: T > 0, in units of logits.
        counted: Which samples' rows of G are summed, (N,), bool; None sums all. N stays the number of all samples.

    Returns:
        Scalar, without unit; never negative; unchanged when a constant is added to any row. It grows with the batch, as
        there are N^2 pairs. Memory O(N^2).

    Raises:
        ValueError: If the shapes disagree or the temperature is not positive.

    Source: Jin et al., Multi-Level Logit Distillation, CVPR 2023, and the authors' code, whose mask of samples scales
    the sum over all of them (see the method `mlkd`).
    """
    s, t = _probabilities("batch_correlation", student, teacher, temperature)
    return _summed(s @ s.mT - t @ t.mT, counted)


def _summed(gap: Tensor, counted: Tensor | None) -> Tensor:
    """Squares of the rows that count, over the number of all rows."""
    rows = gap.square().sum(dim=1)
    return (rows if counted is None else torch.where(counted, rows, 0.0)).sum() / len(rows)


def _probabilities(loss: str, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both sides' softened beliefs, (N, C)."""
    require_same_shape(loss, student, teacher, "(N, C)", 2)
    require_positive("temperature", temperature, NO_SOFTENING)
    return F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)


def _centred(x: Tensor, dim: int) -> Tensor:
    """Vectors less their mean; zero, and without gradient, where nothing but rounding is left."""
    centred = x - x.mean(dim=dim, keepdim=True)
    left, whole = (torch.linalg.vector_norm(v.detach(), dim=dim, keepdim=True) for v in (centred, x))
    return torch.where(left > 10 * torch.finfo(x.dtype).eps * whole, centred, 0.0)


def _pearson(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Correlation of the vectors along a dimension."""
    a, b = _centred(a, dim), _centred(b, dim)
    lengths = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim=dim) / (lengths + 1e-8)
