"""MobileNetV2 of half width for CIFAR, with the parameter names of RepDistiller and mdistiller.

Source: Sandler et al., MobileNetV2, CVPR 2018, arXiv:1801.04381. As in RepDistiller the stem has stride 2 on 32×32, the
first block has an expansion too, and the activation is ReLU instead of ReLU6.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from limbeck.networks.convolutions import chain, conv1x1, conv3x3, he_normal, quiet_linear
from limbeck.networks.staged import Staged, head, name_taps, stage

EXPANSION = 6
BLOCKS = ((8, 1, 1), (12, 2, 1), (16, 3, 2), (32, 4, 2), (48, 3, 1), (80, 3, 2), (160, 1, 1))
"""Of each group: width, number of blocks, stride of the first."""


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depth-wise convolution, 1×1 projection without activation; the input added where it fits."""

    def __init__(self, width_in: int, width: int, stride: int, expansion: int):
        super().__init__()
        inside = width_in * expansion
        self.conv = chain(conv1x1(width_in, inside), conv3x3(inside, inside, stride=stride, groups=inside),
                          conv1x1(inside, width))
        self.fits = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.fits else self.conv(x)


def mobilenetv2(num_classes: int = 100) -> Staged:
    """MobileNetV2, T = 6, half width. The stages end in linear bottlenecks: `stageN` and `stageN.pre` are the same."""
    groups: list[nn.Module] = []
    width_in = 16
    for g, (width, blocks, stride) in enumerate(BLOCKS):
        block = partial(InvertedResidual, expansion=1 if g == 0 else EXPANSION)
        groups.append(stage(block, width_in, width, blocks=blocks, stride=stride))
        width_in = width
    ends = (1, 2, 4, 6)
    stages = [f"blocks.{g}" for g in ends]
    network = Staged(
        {
            "conv1": nn.Sequential(*chain(conv3x3(3, 16, stride=2)), nn.ReLU()),
            "blocks": nn.Sequential(*groups),
            "conv2": nn.Sequential(*chain(conv1x1(width_in, 1280)), nn.ReLU()),
            **head("classifier", nn.Sequential(quiet_linear(1280, num_classes))),
        },
        taps=name_taps(stem="conv1", stages=stages, before=stages, classifier="classifier.0"),
        norm_before_relu=[f"blocks.{g}.{BLOCKS[g][1] - 1}.conv.7" for g in ends],
    )
    he_normal(network)
    return network
