"""Random numbers that depend on named things alone, never on what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that is the same for the same key in every process, run and version of Python.

    Args:
        key: What the numbers depend on, such as the seed, the purpose and the epoch.
        device: Where it draws; a CPU and a GPU draw different numbers.
    """
    return torch.Generator(device).manual_seed(number(*key))


def number(*key: int | str) -> int:
    """A number below 2^63 that is the same for the same key: a seed."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
