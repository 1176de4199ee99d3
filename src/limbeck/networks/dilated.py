"""Convolutional parts of classifiers as dense networks use them: ResNets and MobileNetV2 whose later stages keep size.

A stage that would halve the map keeps it and spreads its kernels instead, so that each still sees as much of the image
and takes the classifier's weights as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from limbeck.networks.convolutions import conv3x3
from limbeck.networks.resnet import BasicBlock, Bottleneck
from limbeck.networks.staged import stage

DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3))}
"""Kind of block and how many in each stage."""


@dataclass(frozen=True)
class Body:
    """Everything of a classifier before its pooling.

    Attributes:
        layers: Name -> layer, in the order in which they run.
        stem: The layer whose output enters the first stage.
        stages: The layers that end the four stages.
        before: Addresses of the stages' outputs before their activation.
        widths: The stages' channels.
    """

    layers: dict[str, nn.Module]
    stem: str
    stages: tuple[str, ...]
    before: tuple[str, ...]
    widths: tuple[int, ...]


def resnet(kind: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int], *, stem: Sequence[int] = (64,),
           widths: Sequence[int] | None = None, rates: Sequence[int] = (1, 1, 2, 4), previous: bool = False,
           channels: int = 3) -> Body:
    """A ResNet for large images, by torchvision's names: a stem and a pooling of stride 2 each, then four stages.

    Args:
        kind: Of its blocks.
        blocks: How many in each stage.
        stem: Channels of its first convolutions: one of 7×7, or several of 3×3.
        widths: Channels of the stages; None: 64, 128, 256, 512, four times as many with bottlenecks.
        rates: Of each stage; above 1 it keeps the map's size and is dilated so.
        previous: Whether a dilated stage's first block has the rate of the stage before, as in torchvision.
        channels: Of the images.
    """
    wide = tuple(widths or (side * (4 if kind is Bottleneck else 1) for side in (64, 128, 256, 512)))
    layers = _stem(channels, stem)
    inside = stem[-1]
    for number, (count, width, rate) in enumerate(zip(blocks, wide, rates, strict=True), start=1):
        layers[f"layer{number}"] = stage(partial(kind, projection="downsample"), inside, width, blocks=count,
                                         stride=1 if number == 1 else 2)
        if rate > 1:
            dilate(layers[f"layer{number}"], rate, first=rates[number - 2] if previous else rate)
        inside = width
    last = tuple(f"layer{number}.{count - 1}.relu_last:in" for number, count in enumerate(blocks, start=1))
    return Body(layers, "maxpool", tuple(f"layer{number}" for number in range(1, 5)), last, wide)


def _stem(channels: int, widths: Sequence[int]) -> dict[str, nn.Module]:
    """One 7×7 convolution by torchvision's names, or several of 3×3 by PSPNet's; a norm and a ReLU each; a pooling."""
    if len(widths) == 1:
        first = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
        return {"conv1": first, "bn1": nn.BatchNorm2d(widths[0]), "relu": nn.ReLU(),
                "maxpool": nn.MaxPool2d(3, stride=2, padding=1)}
    layers: dict[str, nn.Module] = {}
    inside = channels
    for number, width in enumerate(widths, start=1):
        layers |= {f"conv{number}": conv3x3(inside, width, stride=2 if number == 1 else 1),
                   f"bn{number}": nn.BatchNorm2d(width), f"relu{number}": nn.ReLU()}
        inside = width
    return layers | {"maxpool": nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)}


def mobilenetv2(channels: int = 3) -> Body:
    """torchvision's MobileNetV2 up to its last bottleneck, the last two stages dilated; layers are named by number.

    The stages end in linear bottlenecks of 24, 32, 96 and 320 channels: before and after an activation are the same.
    """
    from torchvision.models import mobilenet_v2

    blocks = list(mobilenet_v2().features)[:18]
    if channels != 3:
        blocks[0][0] = conv3x3(channels, 32, stride=2)
    for number, block in enumerate(blocks):
        if number >= 7:
            dilate(block, 4 if number >= 14 else 2)
    ends = ("3", "6", "13", "17")
    return Body({str(number): block for number, block in enumerate(blocks)}, "1", ends, ends, (24, 32, 96, 320))


def dilate(layers: nn.Module, rate: int, *, first: int | None = None) -> None:
    """Let a stage keep the map's size: strides become 1, and kernels of 3×3 are spread out.

    Args:
        layers: A block, or a row of blocks.
        rate: How far apart the kernels' places are.
        first: Another rate for the first block.
    """
    for name, layer in layers.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                own = first if first is not None and name.startswith("0.") else rate
                layer.padding = layer.dilation = (own, own)
