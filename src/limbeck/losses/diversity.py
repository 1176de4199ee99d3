"""How FFSD keeps networks that learn together apart: each is asked to look where the one before it does not."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limbeck.losses.attention import attention_map
from limbeck.losses.checks import require_choice
from limbeck.losses.sizes import to_smaller, unit


def diversity_target(previous: Tensor, *, fraction: float = 1 / 3, scale: Literal["raw", "unit"] = "raw") -> Tensor:
    """Another network's attention turned over: faint where it looked hardest, as before where it hardly looked.

    With A = mean_c F_c^2, N = |A| over a sample's places, a = A / N, and d the K-th smallest entry of a,
    K = max(1, floor(fraction · H · W)),
        target = N - a where a > d,      N / 2 where a = d,      a where a < d.

    Args:
        previous: Features of the network before, (N, C, H, W). A constant: no gradient flows.
        fraction: The share of places that are kept as irrelevant, in (0, 1].
        scale: "raw" as above, as the authors' code has it, N being by far larger than a; "unit" puts N = 1 and brings
            the target to length 1.

    Returns:
        Maps, (N, H, W).

    Raises:
        ValueError: If `previous` is no map, the fraction is outside (0, 1] or the scale is unknown.

    Source: Li et al., Distilling a Powerful Student Model via Online Knowledge Distillation (FFSD), arXiv:2103.14473,
    equation 8, and the authors' code. The equation appears to use one map throughout; the code mixes A's length with
    the entries of a.
    """
    require_choice("diversity_target's scale", scale, ("raw", "unit"))
    attention, length = _attention(previous)
    if scale == "raw":
        return _turned(attention, length, fraction)
    return unit(_turned(attention, torch.ones_like(length), fraction), (1, 2))


def diversity_loss(student: Tensor, previous: Tensor, *, fraction: float = 1 / 3,
                   scale: Literal["raw", "unit"] = "raw") -> Tensor:
    """Squared difference of a student's attention, at length 1, from what the network before it left out.

        loss = mean (n(A^student) - target)^2   over batch and places, target as in `diversity_target`

    Since n(A) has a fixed length, this only turns it towards the target; the target's length weighs the sample.

    Args:
        student: Last maps of this student, (N, C, H, W). Gradients flow here, none to a sample that is zero everywhere.
        previous: Last maps of the student before, (N, C', H', W'); the larger is averaged down to the smaller. A
            constant: no gradient flows.
        fraction: The share of places that are kept as irrelevant, in (0, 1].
        scale: The target's; "raw" is the authors' and grows with the features to the power 4.

    Returns:
        Scalar, averaged over the batch; never negative; unchanged when a student's sample is scaled up. It is not zero
        where the two agree: there it pushes them apart.

    Raises:
        ValueError: If either is no map, the batches differ, the fraction is outside (0, 1] or the scale is unknown.

    Source: FFSD, arXiv:2103.14473, equation 9, and the authors' code, with a weight of 1e-5.
    """
    student, previous = to_smaller("diversity_loss", student, previous)
    target = diversity_target(previous, fraction=fraction, scale=scale)
    return (unit(attention_map(student), (1, 2)) - target).square().mean()


def diversity_feature(previous: Tensor, *, fraction: float = 1 / 3) -> Tensor:
    """Another network's features, shifted so that their attention moves towards `diversity_target`.

    With N, a and the raw target as there, and C channels,
        feature_c = F_c + (target - a) N / C   for every channel c.
    Places that the target keeps stay as they are.

    Args:
        previous: Last maps of the network before, (N, C, H, W). A constant: no gradient flows.
        fraction: The share of places that are kept, in (0, 1].

    Returns:
        Maps, (N, C, H, W): what FFSD gives the self-distillation module to read.

    Raises:
        ValueError: If `previous` is no map or the fraction is outside (0, 1].

    Source: FFSD, arXiv:2103.14473; the authors' code alone, the paper has no equation for it.
    """
    attention, length = _attention(previous)
    shift = (_turned(attention, length, fraction) - attention) * length / previous.shape[1]  # (N, H, W)
    return previous.detach() + shift[:, None]


def _attention(features: Tensor) -> tuple[Tensor, Tensor]:
    """Attention at length 1, (N, H, W), and the length it had, (N, 1, 1); constants."""
    attention = attention_map(features.detach())
    return unit(attention, (1, 2)), torch.linalg.vector_norm(attention, dim=(1, 2), keepdim=True)


def _turned(attention: Tensor, length: Tensor, fraction: float) -> Tensor:
    """length - attention above the threshold, attention below it, and the mean of the two at it."""
    if not 0 < fraction <= 1:
        raise ValueError(f"diversity needs a fraction in (0, 1]; got {fraction}. Use the authors' 1 / 3.")
    places = attention.flatten(1)
    kept = max(1, int(fraction * places.shape[1]))
    # A sort, as kthvalue is not deterministic on a GPU.
    threshold = places.sort(dim=1).values[:, kept - 1, None, None]  # (N, 1, 1)
    return (length / 2 - attention) * (attention - threshold).sign() + length / 2
