"""A network as named layers in a row, and the names under which its outputs are known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from torch import nn


class Staged(nn.Sequential):
    """Layers run one after another, each under its published name, with the taps that methods ask for.

    Attributes:
        taps: Canonical tap -> address. An address is the path of a submodule that runs exactly once in a forward
            pass; the tap is its output or, with `:in` behind the path, its input.
        norm_before_relu: Paths of the batch norms in front of each stage's ReLU, from which OFD takes its margins;
            empty where OFD is not defined for the network.

    Args:
        layers: Name -> layer, in the order in which they run.
        taps: See above.
        norm_before_relu: See above.
    """

    def __init__(self, layers: Mapping[str, nn.Module], taps: Mapping[str, str] | None = None,
                 norm_before_relu: Sequence[str] = ()):
        super().__init__(OrderedDict(layers))
        self.taps = dict(taps or {})
        self.norm_before_relu = tuple(norm_before_relu)


def name_taps(*, stem: str, stages: Sequence[str], before: Sequence[str], classifier: str) -> dict[str, str]:
    """The canonical taps of a network.

    Args:
        stem: Address of what enters the first stage.
        stages: Addresses of the stages' outputs, shallow to deep.
        before: Addresses of the same before the activation.
        classifier: Path of the linear layer, whose input is the pooled feature (N, C).

    Returns:
        Tap -> address for `stem`, `stage1`, `stage1.pre`, `stage2`, ..., `pooled`.
    """
    taps = {"stem": stem}
    for number, (after, pre) in enumerate(zip(stages, before, strict=True), start=1):
        taps[f"stage{number}"] = after
        taps[f"stage{number}.pre"] = pre
    return taps | {"pooled": f"{classifier}:in"}


def stage(block: Callable[[int, int, int], nn.Module], width_in: int, width: int, *, blocks: int,
          stride: int) -> nn.Sequential:
    """Blocks of one width, the first of which carries the stride.

    Args:
        block: Makes a block of its incoming channels, its outgoing channels and its stride.
        width_in: Channels that come in.
        width: Channels that go out.
        blocks: How many.
        stride: Of the first.
    """
    return nn.Sequential(block(width_in, width, stride), *(block(width, width, 1) for _ in range(blocks - 1)))


def head(name: str, classifier: nn.Module) -> dict[str, nn.Module]:
    """The end of every network: the mean over positions, (N, C), and a classifier under its published name."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), name: classifier}
