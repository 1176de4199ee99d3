"""DenseNet-40-12 for CIFAR, as FFSD uses it.

Source: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, arXiv:1608.06993: 3 dense blocks of 12
layers, 12 new channels a layer, without bottlenecks and without compression.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps

GROWTH = 12
LAYERS = 12


class DenseLayer(nn.Module):
    """Norm, ReLU and a 3×3 convolution, whose few new channels are put behind the input's."""

    def __init__(self, width_in: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu = nn.ReLU()
        self.conv1 = conv3x3(width_in, GROWTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv1(self.relu(self.bn1(x)))], dim=1)


def dense(width_in: int) -> nn.Sequential:
    """A dense block: each layer reads all that came before it."""
    return nn.Sequential(*(DenseLayer(width_in + i * GROWTH) for i in range(LAYERS)))


def transition(width: int) -> nn.Sequential:
    """Norm, ReLU, 1×1 convolution of the same width, 2×2 average pooling."""
    return nn.Sequential(OrderedDict(bn1=nn.BatchNorm2d(width), relu=nn.ReLU(), conv1=conv1x1(width, width),
                                     pool=nn.AvgPool2d(2)))


def densenet_40_12(num_classes: int = 100) -> Staged:
    """DenseNet-40-12. The first two stages are raw concatenations, the third is after norm and ReLU."""
    stem, w1, w2, w3 = (2 * GROWTH + i * LAYERS * GROWTH for i in range(4))
    network = Staged(
        {
            "conv1": conv3x3(3, stem),
            "dense1": dense(stem),
            "trans1": transition(w1),
            "dense2": dense(w1),
            "trans2": transition(w2),
            "dense3": dense(w2),
            "bn": nn.BatchNorm2d(w3),
            "relu": nn.ReLU(),
            **head("fc", nn.Linear(w3, num_classes)),
        },
        taps=name_taps(stem="conv1", stages=("dense1", "dense2", "relu"), before=("trans1.bn1", "trans2.bn1", "bn"),
                       classifier="fc"),
    )
    he_normal(network)
    return network
