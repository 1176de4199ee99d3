"""From raw weights, which a search moves freely, to weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.errors import Mistake, nearest


def biased_softmax(raw: Tensor) -> Tensor:
    """exp(a_i) / (sum_j exp(a_j) + e): a softmax with one more logit, of value 1, that is dropped (DistPro, Eq. 2)."""
    return torch.softmax(torch.cat([raw, raw.new_ones(*raw.shape[:-1], 1)], dim=-1), dim=-1)[..., :-1]


def softmax(raw: Tensor) -> Tensor:
    """exp(a_i) / sum_j exp(a_j)."""
    return torch.softmax(raw, dim=-1)


def biased_l1(raw: Tensor) -> Tensor:
    """|a_i| / (sum_j |a_j| + 1); absolute values, as the released code has them, keep weights from turning negative."""
    return raw.abs() / (raw.abs().sum(dim=-1, keepdim=True) + 1)


def l1(raw: Tensor) -> Tensor:
    """|a_i| / sum_j |a_j|, with 1e-12 in the denominator against all zeros."""
    return raw.abs() / (raw.abs().sum(dim=-1, keepdim=True) + 1e-12)


def sigmoid(raw: Tensor) -> Tensor:
    """1 / (1 + exp(-a_i)), each for itself."""
    return torch.sigmoid(raw)


NORMALISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "biased-softmax": biased_softmax, "softmax": softmax, "biased-l1": biased_l1, "l1": l1, "sigmoid": sigmoid}
"""Raw weights (..., L) -> weights (..., L), all at least 0; DistPro's Table 7 compares them."""


def normaliser(name: str) -> Callable[[Tensor], Tensor]:
    """A normaliser by name.

    Raises:
        Mistake: If there is none of that name.
    """
    if name not in NORMALISERS:
        raise Mistake(f"there is no normaliser '{name}'; {nearest(name, NORMALISERS)}")
    return NORMALISERS[name]
