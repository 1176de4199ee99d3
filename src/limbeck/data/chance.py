"""Random numbers that depend on named things alone, never on what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is the same for the same key in every process, run and version of Python.

    Args:
        key: What the numbers depend on, such as the seed, the purpose and the epoch.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
