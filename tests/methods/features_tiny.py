"""Fixed features in place of networks, and a method's total on them in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from methods_tiny import NOW
from torch import Tensor, nn

from limbeck.contract.trial import CLASSES, batch
from limbeck.members import Network
from limbeck.method import Method
from limbeck.seen import Clock

Known = dict[str, dict[str, Tensor]]


def features(student: Network, teacher: Network, own: Sequence[str], theirs: Sequence[str] = ()) -> Known:
    """Float64 features of eight images at the student's and the teacher's taps, and logits."""
    chance = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(8, *shape, dtype=torch.float64, generator=chance)

    return {name: {"logits": drawn(CLASSES), **{tap: drawn(*network.shape(tap)) for tap in taps}}
            for name, network, taps in (("student", student, own), ("teacher", teacher, theirs or own))}


def losses(method: Method, known: Known, now: Clock = NOW) -> dict[str, Tensor]:
    """The active terms' values on these features, all parts in float64."""
    method.double()
    return method(method.see(batch(), now, known=known), method.process.active(now))


def total(method: Method, known: Known, now: Clock = NOW) -> Tensor:
    """The weighted loss on these features."""
    weights = dict(zip(method.process.names, method.process.weights(now).double(), strict=True))
    return sum(weights[name] * loss for name, loss in losses(method, known, now).items())


def weights_of(method: Method, now: Clock = NOW) -> dict[str, float]:
    """Each term's weight."""
    return dict(zip(method.process.names, method.process.weights(now).tolist(), strict=True))


def normed(x: Tensor) -> Tensor:
    """Batch norm by the batch, as it starts: no scale, no shift."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def convolved(x: Tensor, convolution: nn.Conv2d, **options: int) -> Tensor:
    """A convolution of the method's, by its weights alone."""
    return F.conv2d(x, convolution.weight, convolution.bias, **options)


def parameters(module: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in module.parameters())
