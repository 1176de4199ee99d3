"""Distances that ask a student to tell the teacher's view of its own sample from that of others."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.losses.checks import require_positive


def crd(positive: Tensor, negative: Tensor, *, samples: int, eps: float = 1e-7) -> Tensor:
    """How badly scores tell the matching pair of embeddings from K others: one direction of CRD.

    With c = K / samples, the weight that noise-contrastive estimation gives to the noise,
        loss = - mean_n [log(s_n0 / (s_n0 + c + eps)) + sum_k log(c / (s_nk + c + eps))],   k = 1, ..., K.

    Args:
        positive: Scores s_n0 of the pairs of one image, (N,), not negative: exp(<e, memory> / 0.07) / Z in the paper.
            Gradients flow here.
        negative: Scores s_nk of pairs of different images, (N, K), not negative. Gradients flow here.
        samples: How many images the memory holds: the data set's size.
        eps: What keeps the quotients finite, in units of scores.

    Returns:
        Scalar, in nats, averaged over the batch; never negative. CRD adds both directions, the student's embeddings
        against the teacher's memory and the other way round.

    Raises:
        ValueError: If the shapes disagree, or a setting is not positive.

    Source: Tian et al., Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699, and RepDistiller. There a
    positive score of zero makes the loss infinite; here it is taken as the least number of its type.
    """
    if positive.ndim != 1 or negative.ndim != 2 or len(positive) != len(negative):
        raise ValueError(
            f"crd needs positive scores (N,) and negative scores (N, K); got {tuple(positive.shape)} and "
            f"{tuple(negative.shape)}. Give it the matching pair's score apart from the others'.")
    require_positive("samples", samples, "Give it the number of images that the memory holds.")
    require_positive("eps", eps, "Use the authors' 1e-7.")
    c = negative.shape[1] / samples
    least = torch.finfo(positive.dtype).tiny
    missed = torch.log(positive + c + eps) - positive.clamp_min(least).log()  # (N,)
    mistaken = torch.log1p((negative + eps) / c).sum(dim=1)  # (N,)
    return (missed + mistaken).mean()
