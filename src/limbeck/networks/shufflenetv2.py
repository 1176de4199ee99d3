"""ShuffleNetV2 of size 1 for CIFAR, with the parameter names of RepDistiller and mdistiller.

Source: Ma et al., ShuffleNet V2, ECCV 2018, arXiv:1807.11164. As in RepDistiller the stem is a 1×1 convolution of
stride 1 without max-pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3
from limbeck.networks.shufflenetv1 import Shuffle
from limbeck.networks.staged import Staged, head, name_taps


class SplitBlock(nn.Module):
    """Half of the channels pass by, the other half go through three convolutions; then both are shuffled together.

    The ReLU stands behind the concatenation. It changes nothing in the half that passes by, which is positive already:
    every block, and the stem, ends in a ReLU.
    """

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu_last = nn.ReLU()
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        aside, branch = x.chunk(2, dim=1)
        branch = self.relu1(self.bn1(self.conv1(branch)))
        branch = self.bn2(self.conv2(branch))
        branch = self.bn3(self.conv3(branch))
        return self.shuffle(self.relu_last(torch.cat([aside, branch], dim=1)))


class DownBlock(nn.Module):
    """Two branches that each halve the size and make half of the channels, shuffled together."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = conv3x3(width_in, width_in, stride=2, groups=width_in)
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv2 = conv1x1(width_in, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(width_in, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu3 = nn.ReLU()
        self.conv4 = conv3x3(half, half, stride=2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu_last = nn.ReLU()
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        right = self.bn4(self.conv4(self.relu3(self.bn3(self.conv3(x)))))
        right = self.bn5(self.conv5(right))
        return self.shuffle(self.relu_last(torch.cat([left, right], dim=1)))


def down_and_split(width_in: int, width: int, *, splits: int) -> nn.Sequential:
    """A block that halves the size, and so many that keep it."""
    return nn.Sequential(DownBlock(width_in, width), *(SplitBlock(width) for _ in range(splits)))


def shufflenetv2(num_classes: int = 100) -> Staged:
    """ShuffleNetV2, size 1. OFD is not defined for it.

    `stageN.pre` is the concatenation before ReLU and shuffle: its channels are in another order than `stageN`'s, and
    only the second half of them is a pre-activation.
    """
    return Staged(
        {
            "conv1": conv1x1(3, 24),
            "bn1": nn.BatchNorm2d(24),
            "relu": nn.ReLU(),
            "layer1": down_and_split(24, 116, splits=3),
            "layer2": down_and_split(116, 232, splits=7),
            "layer3": down_and_split(232, 464, splits=3),
            "conv2": conv1x1(464, 1024),
            "bn2": nn.BatchNorm2d(1024),
            "relu2": nn.ReLU(),
            **head("linear", nn.Linear(1024, num_classes)),
        },
        taps=name_taps(stem="relu", stages=("layer1", "layer2", "layer3"), classifier="linear",
                       before=("layer1.3.relu_last:in", "layer2.7.relu_last:in", "layer3.3.relu_last:in")),
    )
