"""The networks of the papers, by name: plain modules that know nothing of distillation.

Every one is built by a function of the number of classes, takes images of any size from 8×8 up, and carries `taps`
(canonical tap -> module address) and `norm_before_relu`; see `limbeck.networks.staged.Staged`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from limbeck.errors import Mistake, nearest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        builder: `file:function` in this folder; imported only when the network is built.
        about: What it is, in one line.
        size: (3, H, W) of the images that it was made for.
    """

    builder: str
    about: str
    size: tuple[int, int, int] = (3, 32, 32)


ZOO: dict[str, Entry] = {
    "resnet8": Entry("resnet:resnet8", "ResNet, 8 layers, stages 16, 32, 64 wide; 0.08 M parameters"),
    "resnet14": Entry("resnet:resnet14", "ResNet, 14 layers, stages 16, 32, 64 wide; 0.18 M"),
    "resnet20": Entry("resnet:resnet20", "ResNet, 20 layers, stages 16, 32, 64 wide; 0.28 M"),
    "resnet32": Entry("resnet:resnet32", "ResNet, 32 layers, stages 16, 32, 64 wide; 0.47 M"),
    "resnet44": Entry("resnet:resnet44", "ResNet, 44 layers, stages 16, 32, 64 wide; 0.67 M"),
    "resnet56": Entry("resnet:resnet56", "ResNet, 56 layers, stages 16, 32, 64 wide; 0.86 M"),
    "resnet110": Entry("resnet:resnet110", "ResNet, 110 layers, stages 16, 32, 64 wide; 1.7 M"),
    "resnet8x4": Entry("resnet:resnet8x4", "ResNet, 8 layers, stages 64, 128, 256 wide; 1.2 M"),
    "resnet32x4": Entry("resnet:resnet32x4", "ResNet, 32 layers, stages 64, 128, 256 wide; 7.4 M"),
    "resnet18": Entry("resnet:resnet18", "ResNet-18 with a stem for small images, four stages up to 512 wide; 11 M"),
    "resnet50": Entry("resnet:resnet50", "ResNet-50 with a stem for small images, four stages up to 2048 wide; 24 M"),
    "wrn_16_1": Entry("wrn:wrn_16_1", "wide ResNet, 16 layers, stages 16, 32, 64 wide; 0.18 M"),
    "wrn_40_1": Entry("wrn:wrn_40_1", "wide ResNet, 40 layers, stages 16, 32, 64 wide; 0.57 M"),
    "wrn_16_2": Entry("wrn:wrn_16_2", "wide ResNet, 16 layers, stages 32, 64, 128 wide; 0.70 M"),
    "wrn_28_2": Entry("wrn:wrn_28_2", "wide ResNet, 28 layers, stages 32, 64, 128 wide; 1.5 M"),
    "wrn_40_2": Entry("wrn:wrn_40_2", "wide ResNet, 40 layers, stages 32, 64, 128 wide; 2.3 M"),
    "wrn_16_4": Entry("wrn:wrn_16_4", "wide ResNet, 16 layers, stages 64, 128, 256 wide; 2.8 M"),
    "wrn_28_4": Entry("wrn:wrn_28_4", "wide ResNet, 28 layers, stages 64, 128, 256 wide; 5.9 M"),
    "vgg8": Entry("vgg:vgg8", "VGG with batch norm, 8 layers; 4.0 M"),
    "vgg11": Entry("vgg:vgg11", "VGG with batch norm, 11 layers; 9.3 M"),
    "vgg13": Entry("vgg:vgg13", "VGG with batch norm, 13 layers; 9.5 M"),
    "vgg16": Entry("vgg:vgg16", "VGG with batch norm, 16 layers; 15 M"),
    "vgg19": Entry("vgg:vgg19", "VGG with batch norm, 19 layers; 20 M"),
    "mobilenetv2": Entry("mobilenetv2:mobilenetv2", "MobileNetV2 of half width for small images; 0.81 M"),
    "mobilenetv1": Entry("mobilenetv1:mobilenetv1", "MobileNetV1 for ImageNet; 4.2 M with 1000 classes", (3, 224, 224)),
    "shufflev1": Entry("shufflenetv1:shufflenetv1", "ShuffleNetV1, 3 groups, for small images; 0.95 M"),
    "shufflev2": Entry("shufflenetv2:shufflenetv2", "ShuffleNetV2, size 1, for small images; 1.4 M"),
    "densenet_40_12": Entry("densenet:densenet_40_12", "DenseNet, 40 layers, growth 12, as in FFSD; 1.1 M"),
    "googlenet": Entry("googlenet:googlenet", "GoogLeNet for small images, as in FFSD; 6.3 M"),
    "ffsd_wrn_16_2": Entry("ffsd:ffsd_wrn_16_2", "wide ResNet, 16 layers, as FFSD builds it; 0.70 M"),
    "ffsd_wrn_40_2": Entry("ffsd:ffsd_wrn_40_2", "wide ResNet, 40 layers, as FFSD builds it; 2.3 M"),
    "ffsd_densenet_40_12": Entry("densenet:densenet_40_12", "the same as densenet_40_12"),
    "ffsd_googlenet": Entry("googlenet:googlenet", "the same as googlenet"),
    "digits_large": Entry("digits:digits_large", "a teacher for scikit-learn's digits; 0.1 M", (3, 8, 8)),
    "digits_small": Entry("digits:digits_small", "a student for scikit-learn's digits; 4,000 parameters", (3, 8, 8)),
}

ALIASES = {"shufflenetv1": "shufflev1", "shufflenetv2": "shufflev2"}
"""Further names, in lower case. Capitals never matter: `ResNet50` and `ShuffleV1` are names too."""


def find(name: str) -> Entry:
    """The zoo's entry of this name.

    Raises:
        Mistake: If there is no network of the name.
    """
    lower = name.lower()
    key = ALIASES.get(lower, lower)
    if key not in ZOO:
        raise Mistake(f"a network of the zoo is needed; got {name!r}, which it does not have; {nearest(lower, ZOO)}. "
                      f"`limbeck list networks` shows them all.")
    return ZOO[key]


def build(name: str, num_classes: int) -> nn.Module:
    """An untrained network, with random weights from PyTorch's global generator.

    Args:
        name: One of `ZOO`, in any capitals, or of `ALIASES`.
        num_classes: Logits, at least 1.

    Raises:
        Mistake: If there is no network of the name, or no class.
    """
    entry = find(name)
    if num_classes < 1:
        raise Mistake(f"a network needs at least 1 class; got num_classes={num_classes} for {name}. "
                      "Give the number of classes of the data.")
    file, _, function = entry.builder.partition(":")
    network: nn.Module = getattr(import_module(f"{__name__}.{file}"), function)(num_classes=num_classes)
    return network
