"""Distances between how features change from one layer to the next: each side is a pair of layers."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import require_choice, require_same_batch, require_same_shape
from limbeck.losses.sizes import to_smaller, unit

Layers = tuple[Tensor, Tensor]
"""Maps of an earlier and a later layer, (N, C_a, H_a, W_a) and (N, C_b, H_b, W_b)."""


def fsp(student: Layers, teacher: Layers, *, mode: Literal["repdistiller", "torchdistill"] = "repdistiller") -> Tensor:
    """Squared difference of two networks' flow matrices: which channels of two layers respond together (FSP).

    With a the earlier and b the later layer's map, the larger pooled to the smaller,
        G = a b^T / (H W)   (C_a × C_b, summed over places),
        repdistiller: loss = mean (G^student - G^teacher)^2        over batch and entries; average pooling,
        torchdistill: loss = mean_n sum_j |G^student - G^teacher|_j    the lengths of columns j; maximum pooling.

    Args:
        student: Maps of two layers. Gradients flow here.
        teacher: Maps of two layers with the student's channels. Gradients would flow here too.
        mode: Which reading.

    Returns:
        Scalar, averaged over the batch; never negative.

    Raises:
        ValueError: If the channels or batches disagree, or the mode is unknown.

    Source: Yim et al., A Gift from Knowledge Distillation, CVPR 2017. The paper sums the squares over the entries and
    pools to the maximum.
    """
    require_choice("fsp's mode", mode, ("repdistiller", "torchdistill"))
    s, t = (_flow("fsp", *layers, largest=mode == "torchdistill") for layers in (student, teacher))
    require_same_shape("fsp", s, t, "channels (N, C_a, C_b)")
    if mode == "repdistiller":
        return F.mse_loss(s, t)
    return torch.linalg.vector_norm(s - t, dim=1).sum() / len(s)


def lipschitz(student: Layers, teacher: Layers, *, iterations: int = 10) -> Tensor:
    """Squared difference of how much two networks stretch features from one layer to the next (LONDON).

    With a the earlier and b the later layer's map, the larger averaged down to the smaller,
        M = a b^T / (H W),   K = M M^T,   v_0 = 1,   v_k = K v_{k-1} / |K v_{k-1}|,
        σ = sqrt(|K v|) of the last of the iterations: about M's largest singular value,
        loss = mean_n (σ^student_n - σ^teacher_n)^2.

    Args:
        student: Maps of two layers. Gradients flow here, through the iterations too.
        teacher: Maps of two layers, of any channels. Gradients would flow here too.
        iterations: How often K is applied, at least 1. The authors use 10 on CIFAR, 5 on ImageNet.

    Returns:
        Scalar, in the units of the features to the power 4, averaged over the batch; never negative.

    Raises:
        ValueError: If any is no map, the batches differ, or there is no iteration.

    Source: Shang et al., Lipschitz Continuity Guided Knowledge Distillation, ICCV 2021, arXiv:2108.12905, and the
    authors' codes. On CIFAR theirs starts from a random v, which makes the loss noisy; on ImageNet from ones, as here.
    They divide by zero where K v is zero; here σ is then 1e-6.
    """
    if iterations < 1:
        raise ValueError(f"lipschitz needs 1 iteration or more; got {iterations}. Use the authors' 10.")
    s, t = (_flow("lipschitz", *layers) for layers in (student, teacher))
    require_same_batch("lipschitz", s, t, "pairs of maps")
    return (_largest_singular(s, iterations) - _largest_singular(t, iterations)).square().mean()


def kdsvd(student: Layers, teacher: Layers, *, mode: Literal["repdistiller", "mdistiller"] = "repdistiller",
          count: int = 1) -> Tensor:
    """Difference between how the main directions of two layers' features lie to each other (KD-SVD).

    A sample's map is read as a matrix and its right singular vectors v_1, v_2, ... are taken: `count` of the teacher's,
    each turned so that the sum of its entries is not negative, and count + 3 of the student's, of which each teacher's
    picks the most parallel and turns it to its own sense. With w_k = v_k times the teacher's k-th singular value (the
    `count` of them at length 1), for an entry i of the earlier layer and j of the later,
        h_ijk = exp(-(w^later_jk - w^earlier_ik)^2 / 8),
        loss = mean_n sum_ijk (h^student_ijk - h^teacher_ijk)^2.

    Args:
        student: Maps of two layers. Gradients flow here.
        teacher: Maps of two layers. A constant: no gradient flows.
        mode: How a map (C, H, W) becomes a matrix: "repdistiller" (HW) × C, which needs the teacher's channels in the
            student; "mdistiller" (CH) × W, which needs its width.
        count: How many of the teacher's directions are compared, at least 1.

    Returns:
        Scalar, without unit, averaged over the batch; never negative; unchanged when a map is scaled, up or down or by
        -1.

    Raises:
        ValueError: If batches, or channels (or widths), disagree, the mode is unknown or the count is below 1.

    Source: Lee et al., Self-supervised Knowledge Distillation Using Singular Value Decomposition, ECCV 2018,
    arXiv:1807.06819; RepDistiller and mdistiller. Theirs differentiate the decomposition, whose gradient is infinite
    where two singular values are equal (a zero map), and set what is not finite to zero; here 1 / gap is bounded. They
    leave the sign of a teacher's vector to the library.
    """
    require_choice("kdsvd's mode", mode, ("repdistiller", "mdistiller"))
    if count < 1:
        raise ValueError(f"kdsvd needs a count of 1 or more; got {count}. Use 1, as the released codes do.")
    pairs = [_aligned(s, t.detach(), mode, count) for s, t in zip(student, teacher, strict=True)]
    (s_earlier, t_earlier), (s_later, t_later) = pairs

    def affinity(earlier: Tensor, later: Tensor) -> Tensor:
        return torch.exp(-(later[:, None] - earlier[:, :, None]).square() / 8)  # (N, D_a, D_b, count)

    return (affinity(s_earlier, s_later) - affinity(t_earlier, t_later)).square().sum() / len(student[0])


def _flow(loss: str, earlier: Tensor, later: Tensor, *, largest: bool = False) -> Tensor:
    """Channels of one layer times channels of the next, averaged over places: (N, C_a, C_b)."""
    if largest:
        require_same_batch(loss, earlier, later, "(N, C, H, W)", 4)
        size = [min(earlier.shape[i], later.shape[i]) for i in (2, 3)]
        earlier, later = F.adaptive_max_pool2d(earlier, size), F.adaptive_max_pool2d(later, size)
    else:
        earlier, later = to_smaller(loss, earlier, later)
    a, b = earlier.flatten(2), later.flatten(2)
    return a @ b.mT / a.shape[2]


def _largest_singular(matrix: Tensor, iterations: int) -> Tensor:
    """Largest singular value of each matrix, (N,), by power iteration from ones."""
    square = matrix @ matrix.mT
    v = torch.ones_like(square[:, :, :1])
    for _ in range(iterations):
        v = square @ v
        length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        v = v / length.clamp_min(1e-12)
    return (length.flatten() + 1e-12).sqrt()


def _aligned(student: Tensor, teacher: Tensor, mode: str, count: int) -> Layers:
    """Main directions of two maps, (N, D, count): the teacher's, and those of the student that are nearest to them."""
    s, t = _matrix(student, mode), _matrix(teacher, mode)
    if len(s) != len(t) or s.shape[2] != t.shape[2]:
        side = "channels" if mode == "repdistiller" else "width"
        raise ValueError(
            f"kdsvd, read as in {mode}, needs student and teacher of one batch and the same {side}; got student "
            f"{tuple(student.shape)}, teacher {tuple(teacher.shape)}. Connect the student's map first.")
    v_s, _ = _directions(s, count + 3)
    v_t, values = _directions(t, count)
    v_t = torch.where(v_t.sum(dim=1, keepdim=True) < 0, -v_t, v_t)
    cosines = v_s.mT @ v_t  # (N, count + 3, count)
    nearest = cosines.abs().argmax(dim=1, keepdim=True)
    sense = cosines.gather(1, nearest).sign().detach()
    picked = v_s.gather(2, nearest.expand(-1, v_s.shape[1], -1)) * sense
    scale = unit(values, 1)[:, None]  # (N, 1, count)
    return picked * scale, v_t * scale


def _matrix(x: Tensor, mode: str) -> Tensor:
    """Each map as a matrix of unit size, (N, rows, D): its directions do not depend on the size."""
    rows = x.flatten(2).mT if mode == "repdistiller" else x.flatten(1, 2)
    return rows / torch.linalg.vector_norm(rows.detach(), dim=(1, 2), keepdim=True).clamp_min(1e-12)


def _directions(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Right singular vectors, (N, D, count), and values, (N, count), largest first.

    They are the eigenvectors V of G = M^T M with eigenvalues λ, and a small change dG turns them by
        dv_k = sum_{l != k} v_l <v_l, dG v_k> / (λ_k - λ_l).
    The vectors are found without a graph and that change is added, zero in value: so the gradient is right, and 1 / gap
    can be bounded by gap / (gap^2 + ε^2). G has trace 1; pairs nearer than ε are hardly told apart by its rounding.
    """
    gram = matrix.mT @ matrix
    values, vectors = torch.linalg.eigh(gram.detach())
    values, vectors = values.flip(1), vectors.flip(2)  # largest first
    leading = vectors[:, :, :count]
    gap = values[:, None, :count] - values[:, :, None]  # (N, D, count)
    inverse = gap / (gap.square() + (100 * torch.finfo(gap.dtype).eps) ** 2)
    turn = vectors @ (inverse * (vectors.mT @ (gram - gram.detach()) @ leading))
    return leading + turn, values[:, :count].clamp_min(0).sqrt()
