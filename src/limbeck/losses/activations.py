"""Distances between features before the activation, which see only what would change after it."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.checks import require_positive, require_same_shape
from limbeck.losses.sizes import to_smaller


def activation_boundary(student: Tensor, teacher: Tensor, *, margin: float = 1.0) -> Tensor:
    """How far a student's neurons are from being on and off where its teacher's are, with room to spare (AB).

    For every entry, with t on where t > 0,
        (s + m)^2   if t is off and s > -m,      (s - m)^2   if t is on and s <= m,      0   otherwise;
        loss = mean_n of the sum over a sample's entries.

    Args:
        student: Features before the activation, (N, ...), connected to the teacher's. Gradients flow here.
        teacher: The same shape, before the activation. Only its sign counts: no gradient flows.
        margin: m > 0, in units of the student's features.

    Returns:
        Scalar, in squared units of the student's features, averaged over the batch; never negative; unchanged when the
        teacher's entries are scaled.

    Raises:
        ValueError: If the shapes disagree or the margin is not positive.

    Source: Heo et al., Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons,
    AAAI 2019, arXiv:1811.03233, and the authors' code, whose factor 3 / 1000 and weights of layers are the caller's.
    """
    require_same_shape("activation_boundary", student, teacher, "(N, ...)")
    require_positive("margin", margin, "Use the authors' 1.0.")
    side = torch.where(teacher > 0, 1.0, -1.0).to(student.dtype)
    short = (margin - side * student).relu()  # by how much an entry misses the margin on the teacher's side
    return short.square().sum() / len(student)


def ofd(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared difference of features before the activation, blind where both would be cut off anyway (OFD).

    With the teacher's negative values lifted to the margin, t' = max(t, m_c),
        loss = mean_n sum_cxy (s - t')^2   counted where s > t' or t' > 0.

    Args:
        student: Maps before the activation, (N, C, H, W), connected to the teacher's channels. Gradients flow here.
        teacher: Maps before the activation, (N, C, H', W'); the larger of the two is averaged down to the smaller.
            Gradients would flow here too.
        margin: m, (C,), negative: what `ofd_margin` gives.

    Returns:
        Scalar, in squared units of the features, averaged over the batch; never negative.

    Raises:
        ValueError: If the batches or channels disagree, or there is not one margin a channel.

    Source: Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv:1904.01866. The authors' code
    sums over the batch and divides later; its factor 1 / 1000 and weights of layers are the caller's.
    """
    student, teacher = to_smaller("ofd", student, teacher)
    require_same_shape("ofd", student, teacher, "(N, C, H, W)")
    if tuple(margin.shape) != (teacher.shape[1],):
        raise ValueError(
            f"ofd needs one margin a channel, ({teacher.shape[1]},); got {tuple(margin.shape)}. "
            "Take ofd_margin of the teacher's batch norm at this layer.")
    target = torch.maximum(teacher, margin.to(teacher)[:, None, None])
    counted = (student > target) | (target > 0)
    return torch.where(counted, student - target, 0.0).square().sum() / len(student)


def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """What a channel's negative values are on average after its batch norm, were they normally distributed (OFD).

    With x ~ N(bias, weight^2), φ and Φ the standard normal density and distribution, and r = bias / |weight|,
        m = E[x | x < 0] = bias - |weight| φ(r) / Φ(-r),
    or -3 |weight| where x < 0 has a probability Φ(-r) of 0.001 or less.

    Args:
        weight: The batch norm's scale, (C,). A constant: no gradient flows.
        bias: Its shift, (C,). A constant too.

    Returns:
        Margins, (C,), in units of the features; never positive.

    Raises:
        ValueError: If the two are not vectors of one length.

    Source: Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv:1904.01866, and the authors'
    code, which computes in float64 as this does. A weight of zero divides by zero there; here the margin
    is then the bias where that is negative, else zero.
    """
    if weight.ndim != 1 or weight.shape != bias.shape:
        raise ValueError(
            f"ofd_margin needs weight and bias (C,); got {tuple(weight.shape)} and {tuple(bias.shape)}. "
            "Take both from the batch norm before the activation.")
    scale, shift = weight.detach().double().abs(), bias.detach().double()
    ratio = shift / scale.clamp_min(torch.finfo(torch.float64).tiny)
    negative = torch.special.ndtr(-ratio)  # the probability of x < 0
    density = torch.exp(-0.5 * ratio.square()) / (2 * torch.pi) ** 0.5
    usual = shift - scale * density / negative
    return torch.where(negative > 0.001, usual, -3 * scale).to(weight.dtype)
