"""Distances between two classifiers' logits, sample by sample."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import NO_SOFTENING, require_choice, require_positive, require_same_shape


def soft_kl(student: Tensor, teacher: Tensor, *, temperature: float = 4.0,
            reduction: Literal["batchmean", "mean"] = "batchmean") -> Tensor:
    """Divergence of a student's softened beliefs from its teacher's: the loss of KD.

    With p = softmax(z / T),
        loss = T^2 * mean_n sum_c p^teacher_nc * (log p^teacher_nc - log p^student_nc).
    Its gradient at the student's logits is T (p^student - p^teacher) / N; T^2 keeps that about the same at every T.

    Args:
        student: Logits, (N, C). Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        temperature: T > 0, in units of logits. 4 is usual on CIFAR-100, 1 on ImageNet.
        reduction: "batchmean" as in the formula; "mean" divides by C too, as the codes of TAKD, DGKD and DeiT do.

    Returns:
        Scalar, in nats, averaged over the batch; never negative; unchanged when a constant is added to any row.

    Raises:
        ValueError: If the shapes disagree, the temperature is not positive or the reduction is unknown.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2; sums and factor as
    in RepDistiller and mdistiller. torchdistill leaves T^2 out where its weight of the labels is zero.
    """
    require_same_shape("soft_kl", student, teacher, "(N, C)", 2)
    require_positive("temperature", temperature, NO_SOFTENING)
    require_choice("soft_kl's reduction", reduction, ("batchmean", "mean"))
    s = F.log_softmax(student / temperature, dim=1)
    t = F.log_softmax(teacher / temperature, dim=1)
    kl = F.kl_div(s, t, reduction="batchmean", log_target=True)
    return temperature**2 * (kl if reduction == "batchmean" else kl / student.shape[1])


def soft_cross_entropy(student: Tensor, teacher: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Cross-entropy of a student's softened beliefs under its teacher's, as an exit learns from the last one in BYOT.

    With p = softmax(z / T),
        loss = - mean_n sum_c p^teacher_nc * log p^student_nc.
    That is KL plus the teacher's entropy: the student's gradient is that of `soft_kl` without T^2.

    Args:
        student: Logits, (N, C). Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too, and would sharpen the teacher: detach it.
        temperature: T > 0, in units of logits.

    Returns:
        Scalar, in nats, averaged over the batch; at least the teacher's mean entropy; unchanged when a constant is
        added to any row.

    Raises:
        ValueError: If the shapes disagree or the temperature is not positive.

    Source: Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094; no T^2, as in the authors' code. mmrazor's
    has KL with T^2, which is `soft_kl`.
    """
    require_same_shape("soft_cross_entropy", student, teacher, "(N, C)", 2)
    require_positive("temperature", temperature, NO_SOFTENING)
    return F.cross_entropy(student / temperature, F.softmax(teacher / temperature, dim=1))


def hard_ce(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the teacher's first choice as if it were the label: DeiT's hard distillation.

        loss = - mean_n log softmax(z^student_n)_a,   a = argmax_c z^teacher_nc

    Args:
        student: Logits, (N, C); in DeiT those of the distillation token. Gradients flow here.
        teacher: Logits, (N, C). No gradient passes the argmax.

    Returns:
        Scalar, in nats, averaged over the batch; never negative; unchanged when a constant is added to any row.

    Raises:
        ValueError: If the shapes disagree.

    Source: Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021,
    arXiv:2012.12877, section 4; without label smoothing, as in the authors' code.
    """
    require_same_shape("hard_ce", student, teacher, "(N, C)", 2)
    return F.cross_entropy(student, teacher.argmax(dim=1))


def standardise(logits: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Logits with mean 0 and standard deviation 1 over the classes (LSKD), so that their order and shape remain.

        Z_c = (z_c - mean_j z_j) / (std_j z_j + eps),   std unbiased

    Args:
        logits: (N, C), C at least 2. Gradients flow here, but none into a row whose logits are all equal.
        eps: What keeps the division finite, in units of logits.

    Returns:
        (N, C), without unit; unchanged when a row is shifted or scaled up.

    Raises:
        ValueError: If there is a single class, or the shape is another.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv:2403.01427. The authors' code
    passes 1 / eps times the gradient to a row of equal logits (a head that starts at zero has them); here such a row is
    zero and feels nothing.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"standardise needs logits (N, C) of two classes or more; got {tuple(logits.shape)}. "
            "Give every class a logit of its own.")
    centred = logits - logits.mean(dim=1, keepdim=True)
    spread = logits.std(dim=1, keepdim=True)
    return torch.where(spread > eps, centred / (spread + eps), 0.0)


def standardised_kl(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Divergence of softened beliefs once both sides' logits are standardised: KD under LSKD.

    With Z the standardised logits of `standardise` and p = softmax(Z / T),
        loss = T^2 * mean_n sum_c p^teacher_nc * (log p^teacher_nc - log p^student_nc).

    Args:
        student: Logits, (N, C), C at least 2. Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        temperature: T > 0, in standard deviations.

    Returns:
        Scalar, in nats, averaged over the batch; never negative; unchanged when a row of either side is shifted or
        scaled up.

    Raises:
        ValueError: If the shapes disagree, there is a single class or the temperature is not positive.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv:2403.01427. The authors weigh
    it by 9, which is left to the caller.
    """
    require_same_shape("standardised_kl", student, teacher, "(N, C)", 2)
    return soft_kl(standardise(student), standardise(teacher), temperature=temperature)
