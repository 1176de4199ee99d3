"""Who takes part in every step of a method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from limbeck.errors import Mistake
from limbeck.seen import Clock, Outputs, Seen


class Member(nn.Module):
    """Someone who takes part in every step: computes outputs from what has been seen.

    Attributes:
        reads: Addresses of other members' outputs that `forward` asks for; empty for who looks at the images.
        answers: Whether its `logits` are an answer to the task, to be scored beside the deployed member's.
        labelled: Whether it reads the targets, one class for each image: see `Term`.
        indexed: Whether it remembers images by `Batch.index`: see `Term`.
        auxiliary: Taps that answer the task as well, to help in training, and how much each weighs in the supervised
            loss beside the logits.
    """

    reads: tuple[str, ...] = ()
    answers: bool = False
    labelled: bool = False
    indexed: bool = False
    auxiliary: Mapping[str, float] = MappingProxyType({})

    def forward(self, seen: Seen) -> Outputs:
        """What this member computes in this step, by tap."""
        raise TypeError(f"{type(self).__name__} must define forward(seen) -> Outputs")

    def after_step(self, seen: Seen, clock: Clock) -> None:
        """Called once after each optimiser step; moving averages live here."""

    def deployed(self) -> nn.Module:
        """A plain copy of what ships: no hooks, no scaffolding.

        Raises:
            Mistake: If this member is scaffolding only.
        """
        raise Mistake(f"{type(self).__name__} is not a network that can be deployed; deploy a Network member.")

    def fingerprint(self) -> str:
        """Short hash of what this member is, and of every weight and buffer."""
        return fingerprint(type(self).__name__, self)


def fingerprint(name: str, module: nn.Module) -> str:
    """Short hash of a name and of every weight and buffer of a module."""
    digest = hashlib.sha256(name.encode())
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
