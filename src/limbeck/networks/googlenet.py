"""GoogLeNet for CIFAR, as FFSD uses it.

Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, arXiv:1409.4842; here with batch norm behind every
convolution, a 3×3 stem of stride 1, two 3×3 convolutions in place of the 5×5, and no auxiliary classifiers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.networks.convolutions import chain, conv1x1, conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps


class Inception(nn.Module):
    """Four branches on one input, concatenated before their last ReLU.

    Args:
        width_in: Channels that come in.
        one: Channels of the 1×1 branch.
        three: Channels of the 3×3 branch, inside and at its end.
        five: Channels of the branch of two 3×3 convolutions, inside and at its end.
        pooled: Channels of the branch behind the max-pooling.
    """

    def __init__(self, width_in: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int):
        super().__init__()
        self.b1 = chain(conv1x1(width_in, one, bias=True))
        self.b2 = chain(conv1x1(width_in, three[0], bias=True), conv3x3(*three, bias=True))
        self.b3 = chain(conv1x1(width_in, five[0], bias=True), conv3x3(*five, bias=True),
                        conv3x3(five[1], five[1], bias=True))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *chain(conv1x1(width_in, pooled, bias=True)))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], dim=1))


def googlenet(num_classes: int = 100) -> Staged:
    """GoogLeNet with its nine inception blocks; the stages end before each halving and before the mean."""
    stages = ("inception_b3", "inception_e4", "inception_b5")
    network = Staged(
        {
            "pre_layers": nn.Sequential(*chain(conv3x3(3, 192, bias=True)), nn.ReLU()),
            "inception_a3": Inception(192, 64, (96, 128), (16, 32), 32),
            "inception_b3": Inception(256, 128, (128, 192), (32, 96), 64),
            "maxpool1": nn.MaxPool2d(3, stride=2, padding=1),
            "inception_a4": Inception(480, 192, (96, 208), (16, 48), 64),
            "inception_b4": Inception(512, 160, (112, 224), (24, 64), 64),
            "inception_c4": Inception(512, 128, (128, 256), (24, 64), 64),
            "inception_d4": Inception(512, 112, (144, 288), (32, 64), 64),
            "inception_e4": Inception(528, 256, (160, 320), (32, 128), 128),
            "maxpool2": nn.MaxPool2d(3, stride=2, padding=1),
            "inception_a5": Inception(832, 256, (160, 320), (32, 128), 128),
            "inception_b5": Inception(832, 384, (192, 384), (48, 128), 128),
            **head("linear", nn.Linear(1024, num_classes)),
        },
        taps=name_taps(stem="pre_layers", stages=stages, before=[f"{block}.relu:in" for block in stages],
                       classifier="linear"),
    )
    he_normal(network)
    return network
