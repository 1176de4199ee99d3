"""Residual networks for small images: the CIFAR ResNets of RepDistiller and mdistiller.

Source: He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385; section 4.2 for the three-stage networks. Two
lines of published weights name the same parts differently: `downsample` and `fc` in the three-stage networks,
`shortcut` and `linear` in the four-stage ones; here it is one network with two dialects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from limbeck.networks.convolutions import chain, conv1x1, conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps, stage


@dataclass(frozen=True)
class Dialect:
    """What published weights call a block's projection and the last linear layer."""

    projection: str
    classifier: str


THREE_STAGES = Dialect("downsample", "fc")
FOUR_STAGES = Dialect("shortcut", "linear")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside an identity, or a projection where the width changes; a ReLU after the sum.

    Args:
        width_in: Channels that come in.
        width: Channels that go out.
        stride: Of the first convolution and of the projection.
        projection: Name of the projection in the published weights.
    """

    last_norm: ClassVar[str] = "bn2"

    def __init__(self, width_in: int, width: int, stride: int, projection: str):
        super().__init__()
        self.conv1 = conv3x3(width_in, width, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.beside = add_projection(self, projection, width_in, width, stride)
        self.relu_last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return self.relu_last(branch + self.get_submodule(self.beside)(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, a quarter as wide inside, beside an identity or a projection; ReLU after the sum.

    The stride is on the 3×3 convolution. Arguments as in `BasicBlock`.
    """

    last_norm: ClassVar[str] = "bn3"

    def __init__(self, width_in: int, width: int, stride: int, projection: str):
        super().__init__()
        inside = width // 4
        self.conv1 = conv1x1(width_in, inside)
        self.bn1 = nn.BatchNorm2d(inside)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(inside, inside, stride=stride)
        self.bn2 = nn.BatchNorm2d(inside)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(inside, width)
        self.bn3 = nn.BatchNorm2d(width)
        self.beside = add_projection(self, projection, width_in, width, stride)
        self.relu_last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return self.relu_last(branch + self.get_submodule(self.beside)(x))


def add_projection(block: nn.Module, name: str, width_in: int, width: int, stride: int) -> str:
    """Give a block what stands beside its branch, under the given name, and return that name."""
    changes = width_in != width or stride != 1
    block.add_module(name, chain(conv1x1(width_in, width, stride=stride)) if changes else nn.Identity())
    return name


def residual_network(block: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int], widths: Sequence[int],
                     dialect: Dialect, num_classes: int) -> Staged:
    """A 3×3 stem, stages of residual blocks with strides 1, 2, 2, ..., the mean over positions, a linear layer.

    Args:
        block: Kind of block.
        blocks: Blocks in each stage.
        widths: Channels of the stem and then of each stage: one entry more than `blocks`.
        dialect: Names of the published weights.
        num_classes: Logits.
    """
    layers: dict[str, nn.Module] = {
        "conv1": conv3x3(3, widths[0]), "bn1": nn.BatchNorm2d(widths[0]), "relu": nn.ReLU()}
    for s, number in enumerate(blocks):
        layers[f"layer{s + 1}"] = stage(partial(block, projection=dialect.projection), widths[s], widths[s + 1],
                                        blocks=number, stride=1 if s == 0 else 2)
    last = [f"layer{s}.{number - 1}" for s, number in enumerate(blocks, start=1)]
    network = Staged(
        layers | head(dialect.classifier, nn.Linear(widths[-1], num_classes)),
        taps=name_taps(stem="relu", stages=[f"layer{s}" for s in range(1, len(blocks) + 1)],
                       before=[f"{path}.relu_last:in" for path in last], classifier=dialect.classifier),
        norm_before_relu=[f"{path}.{block.last_norm}" for path in last],
    )
    he_normal(network)
    return network


def resnet(depth: int, num_classes: int = 100, *, widths: Sequence[int] = (16, 16, 32, 64)) -> Staged:
    """The three-stage ResNet of a depth 6n + 2, n basic blocks in a stage; `widths` of the stem and the stages."""
    return residual_network(BasicBlock, [(depth - 2) // 6] * 3, widths, THREE_STAGES, num_classes)


def resnet18(num_classes: int = 100) -> Staged:
    """ResNet-18 with a 3×3 stem and no max-pooling."""
    return residual_network(BasicBlock, (2, 2, 2, 2), (64, 64, 128, 256, 512), FOUR_STAGES, num_classes)


def resnet50(num_classes: int = 100) -> Staged:
    """ResNet-50 with a 3×3 stem and no max-pooling."""
    return residual_network(Bottleneck, (3, 4, 6, 3), (64, 256, 512, 1024, 2048), FOUR_STAGES, num_classes)


resnet8 = partial(resnet, 8)
resnet14 = partial(resnet, 14)
resnet20 = partial(resnet, 20)
resnet32 = partial(resnet, 32)
resnet44 = partial(resnet, 44)
resnet56 = partial(resnet, 56)
resnet110 = partial(resnet, 110)
resnet8x4 = partial(resnet, 8, widths=(32, 64, 128, 256))
resnet32x4 = partial(resnet, 32, widths=(32, 64, 128, 256))
