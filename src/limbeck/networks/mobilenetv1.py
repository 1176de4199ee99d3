"""MobileNetV1 for ImageNet, with the parameter names of mdistiller.

Source: Howard et al., MobileNets, arXiv:1704.04861.
"""

from __future__ import annotations

from torch import nn

from limbeck.networks.convolutions import chain, conv1x1, conv3x3
from limbeck.networks.staged import Staged, name_taps

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Of each depth-wise separable block: width, stride."""


def separable(width_in: int, width: int, *, stride: int) -> nn.Sequential:
    """A 3×3 depth-wise and a 1×1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(*chain(conv3x3(width_in, width_in, stride=stride, groups=width_in), conv1x1(width_in, width)),
                         nn.ReLU())


def mobilenetv1(num_classes: int = 100) -> Staged:
    """MobileNetV1 of full width; divides the size of the image by 32.

    The stages are mdistiller's: the pre-activations of blocks 3, 5, 11 and 13, so `stageN` and `stageN.pre` are the
    same. The activated outputs have the addresses `model.3`, `model.5`, `model.11` and `model.13`.
    """
    layers: list[nn.Module] = [nn.Sequential(*chain(conv3x3(3, 32, stride=2)), nn.ReLU())]
    width_in = 32
    for width, stride in BLOCKS:
        layers.append(separable(width_in, width, stride=stride))
        width_in = width
    stages = [f"model.{block}.4" for block in (3, 5, 11, 13)]
    return Staged(
        {
            "model": nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(width_in, num_classes),
        },
        taps=name_taps(stem="model.0", stages=stages, before=stages, classifier="fc"),
    )
