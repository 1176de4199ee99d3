"""What a source of networks says of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from limbeck.members import Statistics

DISTILLED = "distilled:"
"""Before the name of a vision transformer of timm: given a distillation token."""

WITH_WEIGHTS = ("timm", "torchvision", "hf")
"""Sources whose networks come with weights of their own."""


@dataclass(frozen=True)
class Origin:
    """How a source builds a network, and what it says of the images that the network expects.

    Attributes:
        build: Makes an untrained one.
        pretrained: Makes one with the source's own weights; None where it has none.
        statistics: Of its images; None where it does not say.
        fixed_size: Side of the only images that it takes, in pixels; None where it takes all.
        line: The Python that `build` stands for, modules by their full names, for who has the weights without limbeck's
            command line; None where there is no such line.
    """

    build: Callable[[], nn.Module]
    pretrained: Callable[[], nn.Module] | None = None
    statistics: Statistics | None = None
    fixed_size: int | None = None
    line: str | None = None


def call(function: str, *given: object, **named: object) -> str:
    """A call as one writes it in Python."""
    return f"{function}({', '.join([*map(repr, given), *(f'{key}={value!r}' for key, value in named.items())])})"
