"""ShuffleNetV1 with three groups for CIFAR, with the parameter names of RepDistiller and mdistiller.

Source: Zhang et al., ShuffleNet, CVPR 2018, arXiv:1707.01083. As in RepDistiller the stem is a 1×1 convolution of
stride 1 without max-pooling, and a ReLU follows the depth-wise convolution too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3
from limbeck.networks.staged import Staged, head, name_taps, stage

STEM = 24
GROUPS = 3


class Shuffle(nn.Module):
    """Deals the channels out, one of each group in turn: channel j of group g becomes channel j * groups + g."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleBlock(nn.Module):
    """Grouped 1×1, shuffle, 3×3 depth-wise, grouped 1×1; then joined with the shortcut before the last ReLU.

    With stride 1 the input is added. With stride 2 its 3×3 average-pooled half size is concatenated behind the
    branch, which makes only the channels that are still missing.

    Args:
        width_in: Channels that come in.
        width: Channels that go out.
        stride: 1 or 2.
    """

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        made = width - width_in if stride == 2 else width
        inside = made // 4
        groups = 1 if width_in == STEM else GROUPS  # the stem's few channels are not grouped
        self.conv1 = conv1x1(width_in, inside, groups=groups)
        self.bn1 = nn.BatchNorm2d(inside)
        self.relu1 = nn.ReLU()
        self.shuffle1 = Shuffle(groups)
        self.conv2 = conv3x3(inside, inside, stride=stride, groups=inside)
        self.bn2 = nn.BatchNorm2d(inside)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(inside, made, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(made)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu_last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.shuffle1(self.relu1(self.bn1(self.conv1(x))))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        joined = branch + x if self.shortcut is None else torch.cat([branch, self.shortcut(x)], dim=1)
        return self.relu_last(joined)


def shufflenetv1(num_classes: int = 100) -> Staged:
    """ShuffleNetV1, g = 3. OFD is not defined for it."""
    return Staged(
        {
            "conv1": conv1x1(3, STEM),
            "bn1": nn.BatchNorm2d(STEM),
            "relu": nn.ReLU(),
            "layer1": stage(ShuffleBlock, STEM, 240, blocks=4, stride=2),
            "layer2": stage(ShuffleBlock, 240, 480, blocks=8, stride=2),
            "layer3": stage(ShuffleBlock, 480, 960, blocks=4, stride=2),
            **head("linear", nn.Linear(960, num_classes)),
        },
        taps=name_taps(stem="relu", stages=("layer1", "layer2", "layer3"), classifier="linear",
                       before=("layer1.3.relu_last:in", "layer2.7.relu_last:in", "layer3.3.relu_last:in")),
    )
