"""Distances between the relations of a batch's samples: how they lie to each other in the one network and the other.

Two networks need no common width here: only the number of samples must agree. A batch of one has no relations, and its
loss is zero.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import require_choice, require_positive, require_same_batch, require_same_shape
from limbeck.losses.sizes import unit


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference between which samples of a batch respond alike in the two networks (SP).

    With F the batch's features, a row a sample, G = F F^T, and n(G) the same with every row at length 1,
        loss = sum_ij (n(G^student)_ij - n(G^teacher)_ij)^2 / N^2.

    Args:
        student: Features, (N, ...). Gradients flow here, none through the row of a sample that is zero everywhere.
        teacher: Features, (N, ...), of any width. Gradients would flow here too.

    Returns:
        Scalar, without unit; never negative; unchanged when one side is scaled as a whole. Memory O(N^2).

    Raises:
        ValueError: If the batches differ.

    Source: Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682, for one layer, as
    in RepDistiller.
    """
    require_same_batch("similarity_preserving", student, teacher, "(N, ...)")
    s, t = student.flatten(1), teacher.flatten(1)
    return F.mse_loss(unit(s @ s.mT, 1), unit(t @ t.mT, 1))


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference between how far apart samples lie in the two networks, the mean distance being 1 (RKD, by distance).

    With d_ij = |e_i - e_j|, m the mean of the positive ones, and h(x) = x^2 / 2 where |x| < 1, else |x| - 1/2,
        loss = mean_ij h(d^student_ij / m^student - d^teacher_ij / m^teacher)   over all N^2 pairs.

    Args:
        student: Embeddings, (N, ...). Gradients flow here, none through a pair of equal samples.
        teacher: Embeddings, (N, ...), of any width. Gradients would flow here too.

    Returns:
        Scalar, without unit; never negative; unchanged when either side is shifted, turned or scaled. Memory O(N^2 D)
        for D features.

    Raises:
        ValueError: If the batches differ.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068. The released codes take the
    roots of |a|^2 + |b|^2 - 2ab, at least 1e-12; here differences are exact, and two equal samples have distance 0
    instead of 1e-6 and do not count as positive.
    """
    require_same_batch("rkd_distance", student, teacher, "(N, ...)")

    def distances(features: Tensor) -> Tensor:
        d = torch.linalg.vector_norm(_differences(features), dim=2)  # (N, N)
        mean = d.sum() / (d > 0).sum().clamp_min(1)
        return d / torch.where(mean > 1e-12, mean, 1.0)  # all samples equal: no scale to speak of

    return F.smooth_l1_loss(distances(student), distances(teacher))


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference between the angles that triples of samples make in the two networks (RKD, by angle).

    With u_ij = (e_j - e_i) / |e_j - e_i|, c_ijk = <u_ij, u_ik>, and h(x) = x^2 / 2 where |x| < 1, else |x| - 1/2,
        loss = mean_ijk h(c^student_ijk - c^teacher_ijk)   over all N^3 triples.

    Args:
        student: Embeddings, (N, ...). Gradients flow here, none through a pair of equal samples.
        teacher: Embeddings, (N, ...), of any width. Gradients would flow here too.

    Returns:
        Scalar, without unit; never negative; unchanged when either side is shifted, turned or scaled. Memory O(N^3) and
        O(N^2 D) for D features: 64 samples make a megabyte a side, 512 half a gigabyte.

    Raises:
        ValueError: If the batches differ.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068. Two equal samples have no
    direction: the released codes pass 1e12 times the gradient there, which this leaves out.
    """
    require_same_batch("rkd_angle", student, teacher, "(N, ...)")

    def cosines(features: Tensor) -> Tensor:
        directions = unit(_differences(features), 2)
        return directions @ directions.mT  # (N, N, N)

    return F.smooth_l1_loss(cosines(student), cosines(teacher))


def pkt(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Divergence between the two networks' beliefs which samples are neighbours (PKT).

    With e_i at length 1, k_ij = (1 + <e_i, e_j>) / 2, and P_ij = k_ij / sum_j k_ij,
        loss = mean_ij P^teacher_ij log((P^teacher_ij + eps) / (P^student_ij + eps))   over all N^2 pairs.

    Args:
        student: Embeddings, (N, ...). Gradients flow here, none to a sample that is zero everywhere.
        teacher: Embeddings, (N, ...), of any width. Gradients would flow here too.
        eps: What keeps the logarithm finite.

    Returns:
        Scalar, in nats divided by N; not below -eps; unchanged when a sample is scaled up. Memory O(N^2).

    Raises:
        ValueError: If the batches differ or eps is not positive.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
    arXiv:1803.10837, and the authors' code, which adds 1e-7 to lengths too; pairs of a sample with itself count.
    """
    require_same_batch("pkt", student, teacher, "(N, ...)")
    require_positive("eps", eps, "Use the authors' 1e-7.")

    def neighbours(features: Tensor) -> Tensor:
        e = unit(features.flatten(1), 1)
        closeness = (1 + e @ e.mT).clamp_min(0) / 2  # rounding can bring the cosine below -1
        return closeness / closeness.sum(dim=1, keepdim=True)

    s, t = neighbours(student), neighbours(teacher)
    return (t * torch.log((t + eps) / (s + eps))).mean()


def correlation_congruence(student: Tensor, teacher: Tensor, *, mode: Literal["code", "gaussian", "bilinear"] = "code",
                           gamma: float = 0.4, order: int = 2) -> Tensor:
    """Difference between how the samples of a batch correlate in the two networks' embeddings (CC).

        code:     loss = mean over neighbours i, i+1 in the batch of sum_d |s_id - t_id| |s_(i+1)d - t_(i+1)d|
        gaussian: loss = |K(s) - K(t)| / N^2,   K(e)_ij = exp(-2γ) sum_{p=0}^P (2γ <e_i, e_j>)^p / p!
        bilinear: loss = |K(s) - K(t)| / N^2,   K(e)_ij = <e_i, e_j>
    with |K| the root of the sum of squares. "gaussian" is the expansion of exp(-γ |e_i - e_j|^2) for e of length 1.

    Args:
        student: Embeddings, (N, D). Gradients flow here.
        teacher: Embeddings, (N, D); with a kernel of any width. Gradients would flow here too: in RepDistiller both
            embeddings are trained.
        mode: Which reading: the code that the authors gave to RepDistiller, or the paper's, by its kernel.
        gamma: γ > 0, for "gaussian".
        order: P, at least 1, for "gaussian".

    Returns:
        Scalar, in squared units of the embeddings ("gaussian" mixes their powers up to 2P); never negative. "code"
        depends on the batch's order and is zero where every other sample agrees. With a kernel, memory O(N^2), and a
        sample correlates with itself, so that a batch of one counts.

    Raises:
        ValueError: If the batches or, for "code", the widths differ, or a setting is out of range.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv:1904.01802;
    "gaussian" and "bilinear" with torchdistill's reduction and settings.
    """
    require_choice("correlation_congruence's mode", mode, ("code", "gaussian", "bilinear"))
    require_positive("gamma", gamma, "Use torchdistill's 0.4.")
    if order < 1:
        raise ValueError(f"correlation_congruence needs an order of 1 or more; got {order}. Use torchdistill's 2.")
    if mode == "code":
        require_same_shape("correlation_congruence", student, teacher, "(N, D)", 2)
        gap = (student - teacher).abs()
        return (gap[:-1] * gap[1:]).sum() / max(1, len(gap) - 1)
    require_same_batch("correlation_congruence", student, teacher, "(N, D)", 2)

    def kernel(e: Tensor) -> Tensor:
        if mode == "bilinear":
            return e @ e.mT
        x = 2 * gamma * (e @ e.mT)
        return math.exp(-2 * gamma) * torch.stack([x**p / math.factorial(p) for p in range(order + 1)]).sum(dim=0)

    gap = kernel(student) - kernel(teacher)
    scale = gap.detach().abs().max().clamp_min(1.0)  # powers of large embeddings, squared, would pass float32's range
    return torch.linalg.vector_norm(gap / scale) * scale / len(student) ** 2


def _differences(features: Tensor) -> Tensor:
    """e_j - e_i for every pair, (N, N, D)."""
    e = features.flatten(1)
    return e[None] - e[:, None]
