"""Distances between where two networks look: channels folded into one map, sizes and scales taken out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limbeck.losses.checks import require_choice, require_same_batch, require_same_shape, require_weights
from limbeck.losses.sizes import average_pool, squared_error, to_smaller, unit


def attention_map(features: Tensor, *, power: float = 2.0) -> Tensor:
    """Where a network responds: the mean over channels of the features' size to a power.

        A_xy = mean_c |F_cxy|^p

    Args:
        features: Maps, (N, C, H, W). Gradients flow here.
        power: p, at least 1.

    Returns:
        Maps, (N, H, W), in units of the features to the power p.

    Raises:
        ValueError: If `features` are no maps or the power is below 1.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928, section 3.1. FFSD
    (equation 7) uses the same map.
    """
    if features.ndim != 4:
        raise ValueError(
            f"attention_map needs maps (N, C, H, W); got {tuple(features.shape)}. Tap a layer before the pooling.")
    if not power >= 1:
        raise ValueError(f"attention_map needs a power of 1 or more; got {power}. Use the authors' 2.")
    sizes = features * features if power == 2 else features.abs().pow(power)
    return sizes.sum(dim=1) / features.shape[1]  # unlike a mean's, a sum's gradient is no map of its own


def unit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two features once each sample has length 1: FFSD's distance D.

    With n(x) = x / |x| over all of a sample's entries,
        loss = mean (n(s) - n(t))^2   over all entries, the batch included.

    Args:
        student: Features or attention maps, (N, ...). Gradients flow here, none to a sample that is zero everywhere.
        teacher: The same shape. Gradients would flow here too.

    Returns:
        Scalar, without unit, averaged over the batch; in [0, 4 / entries of a sample]; unchanged when a sample is
        scaled up.

    Raises:
        ValueError: If the shapes disagree.

    Source: Li et al., Distilling a Powerful Student Model via Online Knowledge Distillation (FFSD), arXiv:2103.14473;
    the authors' code, which uses it wherever the paper writes an L2 distance.
    """
    require_same_shape("unit_mse", student, teacher, "(N, ...)")
    dims = tuple(range(1, student.ndim))
    return squared_error(unit(student, dims), unit(teacher, dims))


def attention_transfer(student: Tensor, teacher: Tensor, *, mode: Literal["code", "paper"] = "code",
                       power: float = 2.0) -> Tensor:
    """Difference between where two networks look, each map at length 1 (AT).

    With A = mean_c |F_c|^p and n(A) = A / |A| over a sample's H·W places,
        code:  loss = mean (n(A^student) - n(A^teacher))^2    over batch and places,
        paper: loss = mean_n |n(A^student_n) - n(A^teacher_n)|    the length of the difference, not squared.

    Args:
        student: Maps, (N, C_S, H, W). Gradients flow here, none to a sample that is zero everywhere.
        teacher: Maps, (N, C_T, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow
            here too.
        mode: Which reading: the authors' code, or the equation of their paper.
        power: p, at least 1.

    Returns:
        Scalar, without unit, averaged over the batch; never negative; unchanged when a sample is scaled up.

    Raises:
        ValueError: If either is no map, the batches differ, the mode is unknown or the power is below 1.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928, equation 2,
    without its weight β / 2; the authors' code, RepDistiller and mdistiller.
    """
    require_choice("attention_transfer's mode", mode, ("code", "paper"))
    student, teacher = to_smaller("attention_transfer", student, teacher)
    s, t = attention_map(student, power=power), attention_map(teacher, power=power)
    if mode == "code":
        return unit_mse(s, t)
    return torch.linalg.vector_norm(unit(s, (1, 2)) - unit(t, (1, 2)), dim=(1, 2)).mean()


def weighted_attention(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Difference between where two networks look, a weight for every sample: a pair of layers in AFD (attention).

    With A = mean_c F_c^2, n(A) = A / |A| over a sample's places and P the average pooling to the teacher's size,
        loss = mean_n a_n * mean_xy (n(P A^student_n) - n(A^teacher_n))^2.

    Args:
        student: Maps, (N, C_S, H, W). Gradients flow here, none to a sample that is zero everywhere.
        teacher: Maps, (N, C_T, H', W'). Gradients would flow here too.
        weights: a, (N,): how much the pair matters to each sample. Gradients flow here: the attention learns by them.

    Returns:
        Scalar, without unit; never negative where the weights are not; unchanged when a sample is scaled up.

    Raises:
        ValueError: If either is no map, the batches differ, or there is not one weight a sample.

    Source: Ji et al., Show, Attend and Distill, AAAI 2021, arXiv:2102.02973, and the authors' code: it pools the
    squares' mean, where `attention_transfer` pools the features, and always to the teacher's size. The authors' total
    is the sum of this over all pairs.
    """
    require_same_batch("weighted_attention", student, teacher, "(N, C, H, W)", 4)
    require_weights("weighted_attention", weights, len(student))
    pooled = average_pool(attention_map(student)[:, None], (teacher.shape[2], teacher.shape[3]))
    s, t = unit(pooled.flatten(1), 1), unit(attention_map(teacher).flatten(1), 1)  # (N, HW)
    return (weights * (s - t).square().mean(dim=1)).mean()


def factor_transfer(student: Tensor, teacher: Tensor, *, mode: Literal["paper", "repdistiller"] = "paper") -> Tensor:
    """Mean absolute difference of two factors at length 1: a paraphraser's of the teacher, a translator's (FT).

    With n(x) = x / |x| over all of a sample's entries,
        paper:        loss = mean |n(s) - n(t)|          over batch, channels and places,
        repdistiller: loss = mean |n(A(s)) - n(A(t))|    over batch and places, A = mean_c F_c^2.

    Args:
        student: Factors, (N, C, H, W). Gradients flow here, none to a sample that is zero everywhere.
        teacher: Factors, (N, C, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow
            here too.
        mode: Which reading. RepDistiller's table and its weight of 200 belong to its own; the authors' weight is 500.

    Returns:
        Scalar, without unit, averaged over the batch; never negative; unchanged when a sample is scaled up.

    Raises:
        ValueError: If either is no map, the batches differ, the mode is unknown, or with "paper" the channels differ.

    Source: Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018,
    arXiv:1802.04977; the mean instead of the paper's sum is the authors' code's, and torchdistill's.
    """
    require_choice("factor_transfer's mode", mode, ("paper", "repdistiller"))
    student, teacher = to_smaller("factor_transfer", student, teacher)
    if mode == "repdistiller":
        student, teacher = attention_map(student), attention_map(teacher)
    require_same_shape("factor_transfer", student, teacher, "(N, C, H, W)")
    dims = tuple(range(1, student.ndim))
    return (unit(student, dims) - unit(teacher, dims)).abs().sum() / student.numel()
