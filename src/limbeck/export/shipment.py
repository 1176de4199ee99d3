"""What is shipped: a network without hooks and scaffolding that takes images in [0, 1], and what it says of itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from limbeck import __version__
from limbeck.errors import Mistake
from limbeck.members import Network, prepared
from limbeck.sources.origins import origin_of
from limbeck.taps import answer
from limbeck.tasks.maps import at_size

INPUT, OUTPUT = "images", "output"


class Answering(nn.Module):
    """Images in [0, 1], (N, C, H, W), to answers: resized and normalised inside; a map comes at the images' size.

    Args:
        network: Any; a copy of its module without hooks, in eval mode, is all that is kept of it.
    """

    mean: Tensor
    std: Tensor
    places: Tensor | None

    def __init__(self, network: Network):
        super().__init__()
        self.module = network.deployed().eval()
        self.size = network.size[1:] if network.resize else None
        for name in ("mean", "std", "places"):
            self.register_buffer(name, getattr(network, name))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes), or a map of channels (N, C, H, W)."""
        output = answer(self.module(prepared(images, self.mean, self.std, self.size)))
        assert output is not None, "a Network has looked at what it returns"
        if self.places is not None:
            output = output.index_select(1, self.places)
        return as_large(output, images)


def as_large(output: Tensor, images: Tensor) -> Tensor:
    """A map at the images' height and width, bilinearly; logits of whole images as they are."""
    return at_size(output, images.shape[2:]) if output.ndim == 4 else output


@dataclass(frozen=True)
class Shipment:
    """A network that ships.

    Attributes:
        network: In eval mode, on the CPU.
        shape: Of an image that it gets, (C, H, W), before it resizes.
        about: What every file says of it; see `described`.
    """

    network: Network
    shape: Sequence[int]
    about: Mapping[str, Any]

    @cached_property
    def answering(self) -> Answering:
        """The network with normalisation and resizing in front."""
        return Answering(self.network)

    @cached_property
    def graph(self) -> ExportedProgram:
        """All of `answering` as one graph for any number of images, traced on an empty picture.

        Raises:
            Mistake: If the network cannot be traced so.
        """
        example = torch.zeros(2, *self.shape)  # of 1 or 0 the tracer would make a constant
        try:
            with warnings.catch_warnings():
                # What the tracer says of itself, and of constants that networks make on the way.
                warnings.simplefilter("ignore")
                graph = torch.export.export(self.answering, (example,), strict=False,
                                            dynamic_shapes={INPUT: {0: Dim("batch", min=1)}})
        except Exception as error:  # torch.export raises whatever the network's own code meets
            raise Mistake(f"onnx and pt2 need {self.network.name} as one graph for any number of images; torch.export "
                          f"cannot make it: {first_line(error)} safetensors needs none: --to safetensors") from error
        for node in graph.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        return graph


def described(network: Network, shape: Sequence[int], task: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the files say of a network: what it is, what it wants, what it answers.

    Args:
        network: That ships.
        shape: Of an image that it gets, (C, H, W).
        task: By name.
        classes: Names, in the order of its logits.
    """
    empty = torch.zeros(1, *shape)
    with torch.no_grad():
        output = as_large(network.logits(empty), empty)
    values = "float32: red, green, blue in [0, 1]" + "; then depth in metres, 0 where there is none" * (shape[0] > 3)
    line = origin_of(network.name, output.shape[1], network.size[1], shape[0]).line
    return {
        "name": network.name, **({"build": line} if line else {}), "task": task, "classes": list(classes),
        "input": {"name": INPUT, "shape": ["batch", *shape], "values": values},
        "output": {"name": OUTPUT, "shape": ["batch", *output.shape[1:]]},
        "size": list(network.size), "resize": network.resize, "mean": list(network.statistics.mean),
        "std": list(network.statistics.std), "parameters": sum(p.numel() for p in network.module.parameters()),
        "fingerprint": network.fingerprint(), "limbeck": __version__, "torch": str(torch.__version__)}


def first_line(error: Exception) -> str:
    """What another library says of the root of its failure, in one sentence."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no reason given'}."
