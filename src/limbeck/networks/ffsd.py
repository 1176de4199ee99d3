"""The wide residual networks as FFSD builds them, which are not those of RepDistiller.

Source: FFSD, arXiv:2103.14473, and its authors' code: all convolutions have biases, the second convolution of a block
carries the stride (so the first runs at the larger size), the shortcut takes the raw input, and the last batch norm
has momentum 0.9. Accuracies are to be compared with this variant's own baseline. FFSD's DenseNet and GoogLeNet are in
`densenet` and `googlenet`; its ResNets are those of `resnet`.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps, stage


class PreactivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input or to its 1×1 projection."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(width_in, width, bias=True)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride=stride, bias=True)
        changes = width_in != width or stride != 1
        self.shortcut = conv1x1(width_in, width, stride=stride, bias=True) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(self.relu1(self.bn1(x)))
        branch = self.conv2(self.relu2(self.bn2(branch)))
        return branch + self.shortcut(x)


def ffsd_wrn(depth: int, widen: int, num_classes: int = 100) -> Staged:
    """FFSD's wide ResNet of a depth 6n + 4. The first two stages are raw sums, the third is after norm and ReLU."""
    n = (depth - 4) // 6
    w1, w2, w3 = 16 * widen, 32 * widen, 64 * widen
    network = Staged(
        {
            "conv1": conv3x3(3, 16, bias=True),
            "layer1": stage(PreactivationBlock, 16, w1, blocks=n, stride=1),
            "layer2": stage(PreactivationBlock, w1, w2, blocks=n, stride=2),
            "layer3": stage(PreactivationBlock, w2, w3, blocks=n, stride=2),
            "bn1": nn.BatchNorm2d(w3, momentum=0.9),
            "relu1": nn.ReLU(),
            **head("fc", nn.Linear(w3, num_classes)),
        },
        taps=name_taps(stem="conv1", stages=("layer1", "layer2", "relu1"),
                       before=("layer2.0.bn1", "layer3.0.bn1", "bn1"), classifier="fc"),
    )
    he_normal(network)
    return network


ffsd_wrn_16_2 = partial(ffsd_wrn, 16, 2)
ffsd_wrn_40_2 = partial(ffsd_wrn, 40, 2)
