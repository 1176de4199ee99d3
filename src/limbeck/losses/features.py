"""Distances between two networks' features, entry against entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.losses.checks import require_same_shape, require_weights
from limbeck.losses.sizes import average_pool, squared_error, to_smaller, unit


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two features: FitNet's hint.

        loss = mean (s - t)^2   over all entries, the batch included

    Args:
        student: Features of any shape, connected to the teacher's. Gradients flow here.
        teacher: Features of the same shape. Gradients would flow here too.

    Returns:
        Scalar, in squared units of the features; never negative.

    Raises:
        ValueError: If the shapes disagree.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550, which has half the sum; the
    mean is RepDistiller's and mdistiller's.
    """
    require_same_shape("hint", student, teacher, "the same")
    return squared_error(student, teacher)


def weighted_hint(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """Mean squared difference of two features with a weight for every sample: a pair of layers in SemCKD.

        loss = mean_n a_n * mean (s_n - t_n)^2   the inner mean over the sample's entries

    Args:
        student: Features, (N, ...), connected to the teacher's. Gradients flow here.
        teacher: Features of the same shape. Gradients would flow here too.
        weights: a, (N,): how much the pair matters to each sample. Gradients flow here: the attention learns by them.

    Returns:
        Scalar, in squared units of the features; never negative where the weights are not. With all weights 1 it is
        `hint`.

    Raises:
        ValueError: If the shapes disagree, or there is not one weight a sample.

    Source: Chen et al., Cross-Layer Distillation with Semantic Calibration, AAAI 2021, arXiv:2012.03236. The authors'
    total is the sum of this over all pairs, divided by the number of student layers.
    """
    require_same_shape("weighted_hint", student, teacher, "(N, ...)")
    require_weights("weighted_hint", weights, len(student))
    squares = (student - teacher).square().sum(tuple(range(1, student.ndim)))
    return (weights * squares).mean() * len(student) / student.numel()


def frobenius(student: Tensor, teacher: Tensor) -> Tensor:
    """Length of the whole batch's difference, neither squared nor averaged: the feature term of BYOT.

        loss = sqrt(sum (s - t)^2)   over all entries, the batch included

    Args:
        student: Features of any shape, connected to the teacher's. Gradients flow here, of length 1 over the batch
            however near the two are; none where they are equal.
        teacher: Features of the same shape. Gradients would flow here too.

    Returns:
        Scalar, in units of the features; never negative; it grows with the square root of the batch.

    Raises:
        ValueError: If the shapes disagree.

    Source: Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094, and the authors' code.
    """
    require_same_shape("frobenius", student, teacher, "the same")
    return torch.linalg.vector_norm(student - teacher)


def hcl(student: Tensor, teacher: Tensor, *, levels: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Squared difference of two maps as they are and after ever coarser pooling (HCL, the distance of ReviewKD).

    With MSE the mean over all entries and P_i the average pooling to l_i × l_i cells,
        loss = (MSE(s, t) + sum_i 2^-i MSE(P_i s, P_i t)) / (1 + sum_i 2^-i),   i = 1, 2, ...,
    where the l_i are those levels that lie below the height H; one that is left out halves nothing.

    Args:
        student: Maps, (N, C, H, W), or vectors, (N, C). Gradients flow here.
        teacher: The same shape. Gradients would flow here too.
        levels: Sides of the grids to pool to, from fine to coarse.

    Returns:
        Scalar, in squared units of the features, averaged over all entries; never negative. For vectors, and for maps
        one entry high, the plain mean squared error.

    Raises:
        ValueError: If the shapes disagree, the form is another, or a level is below 1.

    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044, and the authors' code;
    like it, this compares levels with the height alone, whatever the width.
    """
    require_same_shape("hcl", student, teacher, "(N, C) or (N, C, H, W)", 2, 4)
    if any(level < 1 for level in levels):
        raise ValueError(f"hcl needs levels of 1 or more; got {tuple(levels)}. Name sides of grids, as (4, 2, 1).")
    height = student.shape[2] if student.ndim == 4 else 1
    loss, weight, total = squared_error(student, teacher), 1.0, 1.0
    maps, cells = (student, teacher), 0
    for level in levels:
        if level < height:
            weight /= 2
            total += weight
            if cells % level or any(side % max(cells, 1) for side in student.shape[2:]):
                maps = student, teacher  # only means of equal cells can be averaged further
            maps, cells = (average_pool(maps[0], (level, level)), average_pool(maps[1], (level, level))), level
            loss = loss + weight * squared_error(*maps)
    return loss / total


def vid(student: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """How badly a student predicts its teacher's features, in nats, each channel with a variance of its own (VID).

        loss = mean ((m - t)^2 / v_c + log v_c) / 2   over all entries, the batch included

    Args:
        student: m, the prediction made from the student's features, (N, C, H, W). Gradients flow here.
        teacher: t, (N, C, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow here
            too.
        variance: v, (C,), positive, in squared units of the features. Gradients flow here: it is learned.

    Returns:
        Scalar: the negative log-likelihood of a normal distribution without its constant log(2π) / 2, so that it can
        be negative.

    Raises:
        ValueError: If the batches or channels disagree, or there is not one variance a channel.

    Source: Ahn et al., Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv:1904.05835; the
    mean is RepDistiller's. mdistiller's variances are in no optimiser and stay where they start.
    """
    student, teacher = to_smaller("vid", student, teacher)
    require_same_shape("vid", student, teacher, "(N, C, H, W)")
    if tuple(variance.shape) != (student.shape[1],):
        raise ValueError(
            f"vid needs one variance a channel, ({student.shape[1]},); got {tuple(variance.shape)}. "
            "Make the variance for the teacher's channels.")
    entries = student.numel() / student.shape[1]  # of a channel
    return 0.5 * ((student - teacher).square().sum((0, 2, 3)) / (entries * variance) + variance.log()).mean()


def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Discrepancy between two networks' sets of channels, each channel being a pattern over the places of a map (NST).

    With u_i channel i over all places at length 1 and k(a, b) = <a, b>^2,
        loss = mean_n [mean_ij k(t_i, t_j) + mean_ij k(s_i, s_j) - 2 mean_ij k(s_i, t_j)],
    the squared maximum mean discrepancy under a polynomial kernel.

    Args:
        student: Maps, (N, C_S, H, W). Gradients flow here, none to a channel that is zero everywhere.
        teacher: Maps, (N, C_T, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow
            here too, through the last part alone.

    Returns:
        Scalar, without unit, averaged over the batch; never negative; unchanged when a channel is scaled, or channels
        change places. Memory O(N (C_S + C_T)^2) beside the maps.

    Raises:
        ValueError: If either is no map, or the batches differ.

    Source: Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv:1707.01219;
    kernel and means as in RepDistiller, whose products take O(N C_S C_T H W).
    """
    student, teacher = to_smaller("nst", student, teacher)
    s, t = unit(student.flatten(2), 2), unit(teacher.flatten(2), 2)  # (N, C, HW)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).square().mean()

    return kernel(t, t).detach() + kernel(s, s) - 2 * kernel(s, t)
