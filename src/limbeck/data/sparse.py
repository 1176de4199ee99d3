"""A few readings of depth, chosen by a number alone: what a network gets beside the colours."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 0x7FFFFFFF


def sparse_samples(depth: Tensor, keys: Tensor, samples: int) -> Tensor:
    """Depth at some of the pixels that have one, 0 elsewhere.

    Every pixel gets a pseudo-random number from the image's key and its own place; the valid pixels with the smallest
    are taken. So a choice depends on nothing that was drawn before, and is the same on every device.

    Args:
        depth: (N, H, W), 0 where there is no reading.
        keys: A whole number for each image, (N,), not negative.
        samples: How many; all that there are where there are fewer.

    Returns:
        (N, H, W), in the unit of `depth`.

    Source: Ma and Karaman, Sparse-to-Dense, ICRA 2018, arXiv:1709.07492, whose code takes each valid pixel with
    probability samples / valid, so that their number varies.
    """
    flat = depth.flatten(1)
    place = torch.arange(flat.shape[1], device=depth.device)
    number = torch.where(flat > 0, _scrambled(_scrambled(keys)[:, None] ^ place), _BITS + 1)
    chosen = number.topk(min(samples, flat.shape[1]), dim=1, largest=False, sorted=False).indices
    taken = torch.zeros_like(flat).scatter_(1, chosen, flat.gather(1, chosen))
    return taken.view_as(depth)


def _scrambled(x: Tensor) -> Tensor:
    """Whole numbers to 31 bits that look random: xor-shifts and products, as hash functions end with."""
    x = (x + 0x1E3779B9) & _BITS
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & _BITS
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & _BITS
    return x ^ (x >> 16)
