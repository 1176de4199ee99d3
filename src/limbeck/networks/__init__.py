"""The networks of the papers, by name: plain modules that know nothing of distillation.

Every one is built by a function of the number of classes and carries `taps` (canonical tap -> module address).
Classifiers take images of any size from 8×8 up and name their `norm_before_relu`; see
`limbeck.networks.staged.Staged`. Networks of dense tasks give maps (N, C, h, w), smaller than the images, take images
of further channels as well, and may say by `auxiliary` which other tap is supervised beside the logits, and how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
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
        task: What it answers: `classification`, `segmentation` or `depth`.
    """

    builder: str
    about: str
    size: tuple[int, int, int] = (3, 32, 32)
    task: str = "classification"


_scene = partial(Entry, size=(3, 512, 512), task="segmentation")
_room = partial(Entry, size=(3, 228, 304), task="depth")

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
    "pspnet_resnet101": _scene("pspnet:pspnet_resnet101", "PSPNet on ResNet-101, as IFVD's teacher; 70 M parameters"),
    "pspnet_resnet50": _scene("pspnet:pspnet_resnet50", "PSPNet on ResNet-50; 51 M"),
    "pspnet_resnet18": _scene("pspnet:pspnet_resnet18", "PSPNet on ResNet-18, as IFVD's student; 13 M"),
    "pspnet_mobilenetv2": _scene("pspnet:pspnet_mobilenetv2", "PSPNet on MobileNetV2, DistPro's student; 3.1 M"),
    "pspnet_small": _scene("pspnet:pspnet_small", "a light PSPNet, a teacher on a CPU; 1.2 M"),
    "pspnet_tiny": _scene("pspnet:pspnet_tiny", "a lighter PSPNet, its student; 0.09 M"),
    "deeplabv3_resnet101": _scene("deeplab:deeplabv3_resnet101", "DeepLabV3 on ResNet-101, as torchvision's; 61 M"),
    "deeplabv3_resnet50": _scene("deeplab:deeplabv3_resnet50", "DeepLabV3 on ResNet-50, as torchvision's; 42 M"),
    "deeplabv3_resnet18": _scene("deeplab:deeplabv3_resnet18", "DeepLabV3 on ResNet-18; 16 M"),
    "deeplabv3_mobilenetv2": _scene("deeplab:deeplabv3_mobilenetv2", "DeepLabV3 on MobileNetV2; 5.1 M"),
    "sparse_to_dense_resnet18": _room("sparse_to_dense:sparse_to_dense_resnet18",
        "sparse-to-dense on ResNet-18, decoder deconv2; 11 M"),
    "sparse_to_dense_resnet18_deconv3": _room("sparse_to_dense:sparse_to_dense_resnet18_deconv3",
        "sparse-to-dense on ResNet-18, decoder deconv3; 12 M"),
    "sparse_to_dense_resnet18_upconv": _room("sparse_to_dense:sparse_to_dense_resnet18_upconv",
        "sparse-to-dense on ResNet-18, decoder upconv; 12 M"),
    "sparse_to_dense_resnet18_upproj": _room("sparse_to_dense:sparse_to_dense_resnet18_upproj",
        "sparse-to-dense on ResNet-18, decoder upproj; 14 M"),
    "sparse_to_dense_resnet50": _room("sparse_to_dense:sparse_to_dense_resnet50",
        "sparse-to-dense on ResNet-50, decoder deconv2; 28 M"),
    "sparse_to_dense_resnet50_deconv3": _room("sparse_to_dense:sparse_to_dense_resnet50_deconv3",
        "sparse-to-dense on ResNet-50, decoder deconv3; 32 M"),
    "sparse_to_dense_resnet50_upconv": _room("sparse_to_dense:sparse_to_dense_resnet50_upconv",
        "sparse-to-dense on ResNet-50, decoder upconv; 43 M"),
    "sparse_to_dense_resnet50_upproj": _room("sparse_to_dense:sparse_to_dense_resnet50_upproj",
        "sparse-to-dense on ResNet-50, decoder upproj; 64 M"),
    "sparse_to_dense_small": _room("sparse_to_dense:sparse_to_dense_small",
        "a light sparse-to-dense, a teacher on a CPU; 2.9 M"),
    "sparse_to_dense_tiny": _room("sparse_to_dense:sparse_to_dense_tiny", "a lighter one, its student; 0.34 M"),
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


def build(name: str, num_classes: int, channels: int = 3) -> nn.Module:
    """An untrained network, with random weights from PyTorch's global generator.

    Args:
        name: One of `ZOO`, in any capitals, or of `ALIASES`.
        num_classes: Logits, at least 1.
        channels: Of the images.

    Raises:
        Mistake: If there is no network of the name, no class, or it does not take so many channels.
    """
    entry = find(name)
    if num_classes < 1:
        raise Mistake(f"a network needs at least 1 class; got num_classes={num_classes} for {name}. "
                      "Give the number of classes of the data.")
    file, _, function = entry.builder.partition(":")
    builder = getattr(import_module(f"{__name__}.{file}"), function)
    if channels == 3:
        network: nn.Module = builder(num_classes=num_classes)
        return network
    if "channels" not in signature(builder).parameters:
        dense = [other for other, one in ZOO.items() if one.task != "classification"]
        raise Mistake(f"{name} takes images of 3 channels; these have {channels}. Of the zoo, networks of dense tasks "
                      f"take others: {', '.join(dense[:3])}...")
    network = builder(num_classes=num_classes, channels=channels)
    return network
