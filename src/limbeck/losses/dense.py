"""Distances between two networks' maps of a scene, for segmentation and other dense tasks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import NO_SOFTENING, require_choice, require_positive, require_same_shape
from limbeck.losses.sizes import nearest, to_smaller, unit


def absolute(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of two networks' answers: a teacher's depths taken as if they had been measured.

        loss = mean |s - t|   over all entries, the batch included

    Args:
        student: Any shape. Gradients flow here: all of one size, none where both are equal.
        teacher: The same shape. Gradients would flow here too.

    Returns:
        Scalar, in units of the answers; never negative.

    Raises:
        ValueError: If the shapes disagree.

    Source: DistPro's KD on NYUv2 (Deng et al., ECCV 2022, arXiv:2204.05547, Table 6) under the supervised loss of
    sparse-to-dense.
    """
    require_same_shape("absolute", student, teacher, "the same")
    return F.l1_loss(student, teacher)


def pixel_wise(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, valid: Tensor | None = None,
               reduction: Literal["batchsum", "mean", "elements"] = "batchsum") -> Tensor:
    """Divergence of a student's softened beliefs from its teacher's, pixel by pixel (Pi of structured distillation).

    With p = softmax(z / T) over classes and KL_i = sum_c p^teacher_ic (log p^teacher_ic - log p^student_ic) at pixel i,
        loss = T^2 * k * mean_i KL_i   over the valid pixels of the batch,
    where k is N for "batchsum", 1 for "mean" and 1 / C for "elements".

    Args:
        student: Logits, (N, C, H, W). Gradients flow here.
        teacher: Logits, (N, C, H, W). Gradients would flow here too.
        temperature: T > 0, in units of logits.
        valid: Which pixels count, (N, H', W') bool, of any size: the nearest is taken. None: all of them.
        reduction: "batchsum" is Liu et al.'s code, which divides by H·W and not by N (a weight of 10 with 8 images is
            80 on the mean); "mean" is their equation; "elements" is the code of IFVD (10 there is 10 / C on the mean).

    Returns:
        Scalar, in nats; never negative; unchanged when a constant is added to all classes of a pixel; zero where no
        pixel is valid.

    Raises:
        ValueError: If the shapes disagree, the temperature is not positive or the reduction is unknown.

    Source: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv:1903.04197. The
    authors' code takes the cross-entropy: larger by the teacher's entropy, with the same gradient at the student.
    """
    require_same_shape("pixel_wise", student, teacher, "(N, C, H, W)", 4)
    require_positive("temperature", temperature, NO_SOFTENING)
    require_choice("pixel_wise's reduction", reduction, ("batchsum", "mean", "elements"))
    s, t = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    kl = F.kl_div(s, t, reduction="none", log_target=True).sum(dim=1)  # (N, H, W)
    mean = kl.mean() if valid is None else _mean_where(kl, _at_size("pixel_wise", valid, student))
    factor = {"batchsum": len(student), "mean": 1, "elements": 1 / student.shape[1]}[reduction]
    return temperature**2 * factor * mean


def cwd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0, valid: Tensor | None = None) -> Tensor:
    """Divergence between where two networks see each channel: its map as a distribution over places (CWD).

    With φ_nci = exp(F_nci / T) / sum_j exp(F_ncj / T) over the valid places of image n,
        loss = T^2 / (N C) * sum_nci φ^teacher_nci (log φ^teacher_nci - log φ^student_nci).

    Args:
        student: Logits or features, (N, C, H, W), connected to the teacher's channels. Gradients flow here.
        teacher: The same shape. Gradients would flow here too.
        temperature: T > 0, in units of `student`. The authors use 4 on logits.
        valid: Which places count, (N, H', W') bool, of any size: the nearest is taken. None: all, as in the paper.

    Returns:
        Scalar, in nats, averaged over batch and channels, an image without a valid place counting as 0; never negative;
        unchanged when a constant is added to a channel.

    Raises:
        ValueError: If the shapes disagree or the temperature is not positive.

    Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256. The
    authors' code takes the logarithm of a softmax, which can be infinite; `valid` is ours.
    """
    require_same_shape("cwd", student, teacher, "(N, C, H, W)", 4)
    require_positive("temperature", temperature, NO_SOFTENING)
    s, t = (student / temperature).flatten(2), (teacher / temperature).flatten(2)  # (N, C, HW)
    left_out = torch.zeros_like(s[:, :1], dtype=torch.bool)
    if valid is not None:
        left_out = ~_at_size("cwd", valid, student).flatten(1)[:, None]
        empty = left_out.all(dim=2, keepdim=True)
        s, t = s.masked_fill(empty, 0.0), t.masked_fill(empty, 0.0)  # both uniform: nothing to tell them apart
        left_out = left_out & ~empty

    def log_shares(x: Tensor) -> Tensor:
        # 0 on both sides where a place is left out, so that it adds nothing
        return F.log_softmax(x.masked_fill(left_out, -torch.inf), dim=2).masked_fill(left_out, 0.0)

    kl = F.kl_div(log_shares(s), log_shares(t), reduction="batchmean", log_target=True)
    return temperature**2 * kl / student.shape[1]


def pair_wise(student: Tensor, teacher: Tensor, *, patch: float = 0.5,
              pool: Literal["max", "average"] = "max") -> Tensor:
    """Squared difference of how alike the patches of a scene are in the two networks (Pa of structured distillation).

    With f_i the features of patch i, pooled, and A_ij = <f_i / |f_i|, f_j / |f_j|> for the P patches of an image,
        loss = mean_n sum_ij (A^student_nij - A^teacher_nij)^2 / P^2.

    Args:
        student: Features, (N, C_S, H, W). Gradients flow here, but the lengths |f_i| count as constants.
        teacher: Features, (N, C_T, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow
            here too.
        patch: Side of a patch as a share of the map's, in (0, 1]; rounded down, at least one place. Patches at the edge
            are smaller: 65 × 65 places make 3 × 3 patches.
        pool: "max" as the authors' code has it, or "average" as their text.

    Returns:
        Scalar, without unit, averaged over the batch; never negative; unchanged when an image's features are scaled up.
        Memory O(N P^2).

    Raises:
        ValueError: If either is no map, the batches differ, or a setting is out of range.

    Source: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv:1903.04197. The
    authors' code adds 1e-8 to lengths, and passes 1e8 times the gradient to a patch that is zero; here none goes there.
    """
    require_choice("pair_wise's pool", pool, ("max", "average"))
    if not 0 < patch <= 1:
        raise ValueError(f"pair_wise needs a patch in (0, 1]; got {patch}. Use the authors' 0.5, half of the map.")
    student, teacher = to_smaller("pair_wise", student, teacher)
    sides = max(1, int(patch * student.shape[2])), max(1, int(patch * student.shape[3]))
    pooled = F.max_pool2d if pool == "max" else F.avg_pool2d

    def affinities(features: Tensor) -> Tensor:
        f = pooled(features, sides, stride=sides, ceil_mode=True).flatten(2)  # (N, C, P)
        length = torch.linalg.vector_norm(f.detach(), dim=1, keepdim=True)
        f = torch.where(length > 1e-12, f / length.clamp_min(1e-12), 0.0)
        return f.mT @ f

    return F.mse_loss(affinities(student), affinities(teacher))


def ifvd(student: Tensor, teacher: Tensor, labels: Tensor, *, classes: int,
         over: Literal["all", "labelled"] = "all") -> Tensor:
    """Squared difference of how far pixels stray from their class's prototype in the two networks (IFVD).

    With μ the mean of the features over the pixels of an image that share pixel i's label, and M_i = cos(f_i, μ),
        loss = mean_i (M^student_i - M^teacher_i)^2   over the pixels of the batch.

    Args:
        student: Features, (N, C_S, H, W). Gradients flow here, through the prototypes too.
        teacher: Features, (N, C_T, H', W'); the larger of the two is averaged down to the smaller. Gradients would flow
            here too.
        labels: True classes, (N, H'', W''), int64, of any size: the nearest is taken. What lies outside [0, classes) is
            unlabelled and adds nothing.
        classes: How many classes there are.
        over: What the mean divides by: "all" pixels, the unlabelled among them, as the authors' code does, or the
            "labelled" ones.

    Returns:
        Scalar, without unit; in [0, 4]; unchanged when an image's features are scaled up; zero where no pixel is
        labelled. Memory O(N (C + classes) H W).

    Raises:
        ValueError: If either is no map, the batches differ, the labels are no label maps of the batch, or a setting is
            out of range.

    Source: Wang et al., Intra-class Feature Variation Distillation for Semantic Segmentation, ECCV 2020, and the
    authors' code, where an unlabelled pixel is its own prototype, with a cosine of 1 on both sides.
    """
    require_choice("ifvd's over", over, ("all", "labelled"))
    require_positive("classes", classes, "Give it how many there are, as 19 in Cityscapes.")
    student, teacher = to_smaller("ifvd", student, teacher)
    if labels.ndim != 3 or len(labels) != len(student) or labels.dtype != torch.int64:
        raise ValueError(
            f"ifvd needs labels (N, H, W), int64, of {len(student)} images; got {tuple(labels.shape)}, {labels.dtype}. "
            "Give it the label maps of the same images.")
    labels = nearest(labels, (student.shape[2], student.shape[3])).flatten(1)  # (N, HW)
    member = (labels[:, :, None] == torch.arange(classes, device=labels.device)).to(student.dtype)  # (N, HW, classes)

    def likeness(features: Tensor) -> Tensor:
        f = features.flatten(2)  # (N, C, HW)
        prototypes = f @ member.to(f.dtype)  # sums instead of means: the cosine does not see the length
        return (unit(f, 1) * unit(prototypes @ member.to(f.dtype).mT, 1)).sum(dim=1)  # (N, HW)

    gap = (likeness(student) - likeness(teacher)).square()  # 0 where there is no label: both prototypes are zero there
    return gap.mean() if over == "all" else _mean_where(gap, member.sum(dim=2) > 0)


def _at_size(loss: str, valid: Tensor, maps: Tensor) -> Tensor:
    """The mask at the maps' size, (N, H, W)."""
    if valid.ndim != 3 or len(valid) != len(maps) or valid.dtype != torch.bool:
        raise ValueError(
            f"{loss} needs valid (N, H, W), bool, of {len(maps)} images; got {tuple(valid.shape)}, {valid.dtype}. "
            "Compare the labels with the ignored one.")
    return nearest(valid, (maps.shape[2], maps.shape[3]))


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the places that count; 0 if none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)
