"""Convolutions as the small-image networks use them, in chains with batch norm, and the values they start from."""

from __future__ import annotations

from torch import nn


def conv3x3(width_in: int, width: int, *, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3×3 convolution that keeps the size, or divides it by the stride."""
    return nn.Conv2d(width_in, width, 3, stride=stride, padding=1, groups=groups, bias=bias)


def conv1x1(width_in: int, width: int, *, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 1×1 convolution."""
    return nn.Conv2d(width_in, width, 1, stride=stride, groups=groups, bias=bias)


def chain(*convolutions: nn.Conv2d) -> nn.Sequential:
    """Convolutions, each followed by batch norm, with a ReLU between one pair and the next and none at the end.

    Convolution m has index 3m and its norm 3m + 1, as in the published VGG and MobileNet weights. The last activation
    is left to the caller, so that what enters it has a place where it can be tapped.
    """
    layers: list[nn.Module] = []
    for convolution in convolutions:
        layers += [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def he_normal(network: nn.Module) -> None:
    """Start every convolution from N(0, sqrt(2 / (k² C))): k is its kernel, C its number of outputs; biases from 0.

    He et al.'s fan-out rule, ICCV 2015, arXiv:1502.01852; C counts all outputs also where a convolution is grouped.
    Batch norms need nothing: PyTorch starts them at weight 1, bias 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def quiet_linear(width: int, num_classes: int) -> nn.Linear:
    """A classifier that starts with almost equal logits, as the VGG and MobileNetV2 of RepDistiller do."""
    linear = nn.Linear(width, num_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
