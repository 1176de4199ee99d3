"""Wide residual networks for CIFAR, with the parameter names of RepDistiller and mdistiller.

Source: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016, arXiv:1605.07146. Pre-activation: batch norm and
ReLU stand before each convolution, so a stage's output is a raw sum. What is before its activation is the batch norm
that the next stage, or the network's end, applies to it: `stageN.pre` is that norm's own output.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps, stage


class PreactivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input.

    Where the width changes, the first norm and ReLU serve the 1×1 shortcut as well as the branch; otherwise the
    shortcut is the raw input.
    """

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(width_in, width, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.convShortcut = conv1x1(width_in, width, stride=stride) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        branch = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return branch + (x if self.convShortcut is None else self.convShortcut(active))


def block(width_in: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    """A stage, one name deeper than elsewhere: the published weights have `block1.layer.0`."""
    layer = stage(PreactivationBlock, width_in, width, blocks=blocks, stride=stride)
    return nn.Sequential(OrderedDict(layer=layer))


def wrn(depth: int, widen: int, num_classes: int = 100) -> Staged:
    """The wide ResNet of a depth 6n + 4: three stages of n blocks, 16, 32 and 64 times `widen` channels wide."""
    n = (depth - 4) // 6
    w1, w2, w3 = 16 * widen, 32 * widen, 64 * widen
    norms = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
    classifier = nn.Linear(w3, num_classes)
    nn.init.zeros_(classifier.bias)
    network = Staged(
        {
            "conv1": conv3x3(3, 16),
            "block1": block(16, w1, blocks=n, stride=1),
            "block2": block(w1, w2, blocks=n, stride=2),
            "block3": block(w2, w3, blocks=n, stride=2),
            "bn1": nn.BatchNorm2d(w3),
            "relu": nn.ReLU(),
            **head("fc", classifier),
        },
        taps=name_taps(stem="conv1", stages=("block1", "block2", "block3"), before=norms, classifier="fc"),
        norm_before_relu=norms,
    )
    he_normal(network)
    return network


wrn_16_1 = partial(wrn, 16, 1)
wrn_40_1 = partial(wrn, 40, 1)
wrn_16_2 = partial(wrn, 16, 2)
wrn_28_2 = partial(wrn, 28, 2)
wrn_40_2 = partial(wrn, 40, 2)
wrn_16_4 = partial(wrn, 16, 4)
wrn_28_4 = partial(wrn, 28, 4)
