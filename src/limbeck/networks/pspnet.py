"""PSPNet: the last stage's map beside its means over coarse grids, and logits from both; an auxiliary head beside.

Source: Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv:1612.01105. Layers and names are those of the codes
of structured distillation and of IFVD, whose weights load: specs/models.md section 7. Their norms carry the activation
themselves, so that it takes up no number in a row of layers; they scale by |weight| + 1e-5, which is the weight where
that is not negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.networks.convolutions import conv1x1, conv3x3, he_normal
from limbeck.networks.dilated import DEPTHS, Body, mobilenetv2, resnet
from limbeck.networks.resnet import BasicBlock

BINS = (1, 2, 3, 6)


class CellNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a channel has one value: a grid of one cell, one image."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ActiveNorm(CellNorm):
    """Batch norm and leaky ReLU (0.01) in one layer."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.01)


class Pyramid(nn.Module):
    """A map beside its means over grids of 1, 2, 3 and 6 cells a side, and a 3×3 convolution over them all.

    Args:
        width_in: Channels that come in.
        width: Channels that go out, and of each grid.
    """

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), conv1x1(width_in, width), ActiveNorm(width)) for side in BINS)
        self.bottleneck = nn.Sequential(conv3x3(width_in + len(BINS) * width, width), ActiveNorm(width),
                                        nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        grids = [F.interpolate(stage(x), x.shape[-2:], mode="bilinear", align_corners=True) for stage in self.stages]
        out: Tensor = self.bottleneck(torch.cat([*grids, x], dim=1))
        return out


class PSPNet(nn.Module):
    """A body, the pyramid, and a 1×1 convolution to logits (N, C, h, w), an eighth of the image's size.

    Attributes:
        taps: `stem`, `stage1`..., `stage1.pre`..., `psp` (the pyramid's output), `aux` (the auxiliary logits).
        auxiliary: Weight of the auxiliary logits in the supervised loss, by tap.

    Args:
        body: Up to the last stage.
        width: Channels of the pyramid's output and of the auxiliary head.
        num_classes: Logits.
        within: Name under which the body's layers stand together; none: beside the heads.
    """

    def __init__(self, body: Body, width: int, num_classes: int, *, within: str = ""):
        super().__init__()
        below = f"{within}." if within else ""
        home: nn.Module = self
        if within:
            home = nn.Sequential()
            self.add_module(within, home)
        for name, layer in body.layers.items():
            home.add_module(name, layer)
        self.pspmodule = Pyramid(body.widths[3], width)
        self.head = nn.Conv2d(width, num_classes, 1)
        self.dsn = nn.Sequential(nn.Conv2d(body.widths[2], width, 3, padding=1), ActiveNorm(width), nn.Dropout2d(0.1),
                                 nn.Conv2d(width, num_classes, 1))
        self.body, self.middle = tuple(below + name for name in body.layers), below + body.stages[2]
        self.taps = {**dense_taps(body, below), "psp": "pspmodule", "aux": "dsn"}
        self.auxiliary = {"aux": 0.4}
        he_normal(nn.ModuleList([*body.layers.values(), self.pspmodule]))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.body:
            x = self.get_submodule(name)(x)
            if name == self.middle:
                self.dsn(x)  # for who reads `aux`
        logits: Tensor = self.head(self.pspmodule(x))
        return logits


def dense_taps(body: Body, below: str = "") -> dict[str, str]:
    """Canonical tap -> address of a body's layers.

    Args:
        body: Part of a network.
        below: What its layers' names begin with there.
    """
    taps = {"stem": below + body.stem}
    for number, (after, before) in enumerate(zip(body.stages, body.before, strict=True), start=1):
        taps |= {f"stage{number}": below + after, f"stage{number}.pre": below + before}
    return taps


def pspnet_resnet(depth: int, num_classes: int = 19, *, channels: int = 3) -> PSPNet:
    """PSPNet on a ResNet with three convolutions of 3×3 at its beginning; 512 channels on bottlenecks, else 128."""
    kind, blocks = DEPTHS[depth]
    width = 128 if kind is BasicBlock else 512
    return PSPNet(resnet(kind, blocks, stem=(64, 64, 128), channels=channels), width, num_classes)


def pspnet_mobilenetv2(num_classes: int = 19, *, channels: int = 3) -> PSPNet:
    """PSPNet on MobileNetV2, 128 channels: DistPro's student on Cityscapes. Weights of torchvision's fit `features`."""
    return PSPNet(mobilenetv2(channels), 128, num_classes, within="features")


def _light(stem: Sequence[int], widths: Sequence[int], blocks: int, width: int, num_classes: int = 19, *,
           channels: int = 3) -> PSPNet:
    body = resnet(BasicBlock, (blocks,) * 4, stem=stem, widths=widths, channels=channels)
    return PSPNet(body, width, num_classes)


pspnet_resnet18 = partial(pspnet_resnet, 18)
pspnet_resnet50 = partial(pspnet_resnet, 50)
pspnet_resnet101 = partial(pspnet_resnet, 101)
pspnet_small = partial(_light, (16, 16, 32), (32, 64, 96, 128), 2, 32)
pspnet_tiny = partial(_light, (8, 8, 16), (16, 24, 32, 48), 1, 16)
