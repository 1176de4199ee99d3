"""DeepLabV3: parallel convolutions of several dilations on the last stage's map; an auxiliary head on the third.

Source: Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, arXiv:1706.05587. Heads are
torchvision's, and so are the names: weights of its `deeplabv3_resnet50` and `deeplabv3_resnet101` load. Logits stay at
the last stage's size, an eighth of the image; torchvision brings them to the image's.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from limbeck.networks.convolutions import he_normal
from limbeck.networks.dilated import DEPTHS, Body, mobilenetv2, resnet
from limbeck.networks.pspnet import CellNorm, dense_taps


class DeepLabV3(nn.Module):
    """A body, atrous spatial pyramid pooling (256 channels), and logits (N, C, h, w).

    Attributes:
        taps: `stem`, `stage1`..., `stage1.pre`..., `psp` (the pyramid's output), `aux` (the auxiliary logits).
        auxiliary: Weight of the auxiliary logits in the supervised loss, by tap; torchvision's own.

    Args:
        body: Up to the last stage.
        num_classes: Logits.
    """

    def __init__(self, body: Body, num_classes: int):
        super().__init__()
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        from torchvision.models.segmentation.fcn import FCNHead

        self.backbone = nn.Sequential(OrderedDict(body.layers))
        he_normal(self.backbone)
        self.classifier = DeepLabHead(body.widths[3], num_classes)
        pooling = self.classifier[0].convs[-1]
        pooling[2] = CellNorm(pooling[2].num_features)
        self.aux_classifier = FCNHead(body.widths[2], num_classes)
        self.body, self.middle = tuple(body.layers), body.stages[2]
        self.taps = {**dense_taps(body, "backbone."), "psp": "classifier.0", "aux": "aux_classifier"}
        self.auxiliary = {"aux": 0.5}

    def forward(self, x: Tensor) -> Tensor:
        for name in self.body:
            x = self.backbone.get_submodule(name)(x)
            if name == self.middle:
                self.aux_classifier(x)  # for who reads `aux`
        logits: Tensor = self.classifier(x)
        return logits


def deeplabv3_resnet(depth: int, num_classes: int = 19, *, channels: int = 3) -> DeepLabV3:
    """DeepLabV3 on torchvision's ResNet of a depth, its last two stages dilated."""
    kind, blocks = DEPTHS[depth]
    return DeepLabV3(resnet(kind, blocks, previous=True, channels=channels), num_classes)


def deeplabv3_mobilenetv2(num_classes: int = 19, *, channels: int = 3) -> DeepLabV3:
    """DeepLabV3 on MobileNetV2."""
    return DeepLabV3(mobilenetv2(channels), num_classes)


deeplabv3_resnet18 = partial(deeplabv3_resnet, 18)
deeplabv3_resnet50 = partial(deeplabv3_resnet, 50)
deeplabv3_resnet101 = partial(deeplabv3_resnet, 101)
