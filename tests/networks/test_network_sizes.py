"""Every network has the published number of parameters and of multiplications, and taps of the published shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.networks import ZOO, build

THIN = ((16, 32), (16, 32), (32, 16), (64, 8), 64)
TWICE = ((16, 32), (32, 32), (64, 16), (128, 8), 128)
FOUR = ((16, 32), (64, 32), (128, 16), (256, 8), 256)
RESNET_X4 = ((32, 32), (64, 32), (128, 16), (256, 8), 256)
VGG = ((64, 32), (128, 16), (256, 8), (512, 4), (512, 4), 512)
DENSENET = ((24, 32), (168, 32), (312, 16), (456, 8), 456)
GOOGLENET = ((192, 32), (480, 32), (832, 16), (1024, 8), 1024)

CLASSIFIERS = {name for name, entry in ZOO.items() if entry.task == "classification"}

# Parameters with 100 classes, millions of multiplications at 32×32, and (channels, size) of the stem and the stages,
# channels of the pooled feature: specs/models.md section 1, for the last six rows ffsd.md sections 2 and 6.1.
TABLE = {
    "resnet8": (83_892, 12.51, THIN),
    "resnet14": (181_108, 26.66, THIN),
    "resnet20": (278_324, 40.82, THIN),
    "resnet32": (472_756, 69.13, THIN),
    "resnet44": (667_188, 97.44, THIN),
    "resnet56": (861_620, 125.75, THIN),
    "resnet110": (1_736_564, 253.16, THIN),
    "resnet8x4": (1_233_540, 177.07, RESNET_X4),
    "resnet32x4": (7_433_860, 1083.04, RESNET_X4),
    "wrn_16_1": (180_916, 26.66, THIN),
    "wrn_40_1": (569_780, 83.29, THIN),
    "wrn_16_2": (703_284, 101.12, TWICE),
    "wrn_28_2": (1_479_220, 214.36, TWICE),
    "wrn_40_2": (2_255_156, 327.61, TWICE),
    "wrn_16_4": (2_772_020, 392.64, FOUR),
    "wrn_28_4": (5_872_180, 845.62, FOUR),
    "vgg8": (3_965_028, 96.19, VGG),
    "vgg11": (9_277_284, 209.44, VGG),
    "vgg13": (9_462_180, 284.94, VGG),
    "vgg16": (14_774_436, 398.18, VGG),
    "vgg19": (20_086_692, 511.43, VGG),
    "mobilenetv2": (812_836, 6.52, ((16, 16), (12, 16), (16, 8), (48, 4), (160, 2), 1280)),
    "shufflev1": (949_258, 38.69, ((24, 32), (240, 16), (480, 8), (960, 4), 960)),
    "shufflev2": (1_355_528, 44.50, ((24, 32), (116, 16), (232, 8), (464, 4), 1024)),
    "resnet50": (23_705_252, 1298.01, ((64, 32), (256, 32), (512, 16), (1024, 8), (2048, 4), 2048)),
    "resnet18": (11_220_132, 555.47, ((64, 32), (64, 32), (128, 16), (256, 8), (512, 4), 512)),
    "ffsd_wrn_16_2": (704_420, 129.43, TWICE),
    "ffsd_wrn_40_2": (2_258_084, 355.92, TWICE),
    "ffsd_densenet_40_12": (1_100_428, 282.96, DENSENET),
    "ffsd_googlenet": (6_258_500, 1521.85, GOOGLENET),
    "densenet_40_12": (1_100_428, 282.96, DENSENET),
    "googlenet": (6_258_500, 1521.85, GOOGLENET),
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiplications(network: nn.Module) -> list[int]:
    """One entry per convolution and linear layer as they run: multiplications for one image."""
    counts: list[int] = []

    def add(layer: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        places = output[0, 0].numel() if output.dim() == 4 else 1
        counts.append(layer.weight.numel() * places)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    return counts


def shapes(row: tuple) -> dict[str, tuple[int, ...]]:
    """Tap -> shape for one image, from a row of the table."""
    stem, *stages, pooled = row
    expected = {"stem": (1, stem[0], stem[1], stem[1]), "pooled": (1, pooled), "logits": (1, 100)}
    for number, (channels, size) in enumerate(stages, start=1):
        expected[f"stage{number}"] = expected[f"stage{number}.pre"] = (1, channels, size, size)
    return expected


def test_the_table_covers_the_zoo():
    assert CLASSIFIERS - set(TABLE) == {"mobilenetv1", "digits_large", "digits_small"}


@pytest.mark.parametrize("name", TABLE)
def test_size_and_taps_are_the_published_ones(name, read):
    expected_parameters, expected_millions, row = TABLE[name]
    network = build(name, 100).eval()
    counts = count_multiplications(network)

    seen = read(network, torch.rand(1, 3, 32, 32))

    assert parameters(network) == expected_parameters
    assert sum(counts) / 1e6 == pytest.approx(expected_millions, abs=0.0051)
    assert {tap: tuple(x.shape) for tap, x in seen.items()} == shapes(row)


def test_mobilenetv1_is_that_of_imagenet(read):
    network = build("mobilenetv1", 1000).eval()
    counts = count_multiplications(network)

    seen = read(network, torch.rand(1, *ZOO["mobilenetv1"].size))

    assert parameters(network) == 4_231_976
    assert sum(counts) / 1e6 == pytest.approx(568.7, abs=0.051)
    shapes = [tuple(seen[f"stage{number}"].shape) for number in (1, 2, 3, 4)]
    assert shapes == [(1, 128, 56, 56), (1, 256, 28, 28), (1, 512, 14, 14), (1, 1024, 7, 7)]
    assert seen["pooled"].shape == (1, 1024)
    assert network.taps["stage1"] == network.taps["stage1.pre"] == "model.3.4"


@pytest.mark.parametrize(("name", "expected"), [("digits_large", 104_042), ("digits_small", 3_642)])
def test_digits_networks_are_small(name, expected, read):
    network = build(name, 10).eval()

    seen = read(network, torch.rand(2, *ZOO[name].size))

    assert parameters(network) == expected
    assert [seen[f"stage{number}"].shape[-1] for number in (1, 2, 3)] == [8, 4, 2]


def test_other_numbers_of_classes_change_the_classifier_alone():
    # Tiny-ImageNet's teacher and student of mdistiller: specs/models.md section 6.
    assert parameters(build("resnet18", 200)) == 11_271_432
    assert parameters(build("shufflev2", 200)) == 1_458_028


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("name", sorted(CLASSIFIERS - {"resnet110", "googlenet", "densenet_40_12", "resnet50"}))
def test_other_image_sizes_run(name, size):
    with torch.no_grad():
        assert build(name, 7).eval()(torch.rand(1, 3, size, size)).shape == (1, 7)


@pytest.mark.parametrize(("size", "last"), [(32, 4), (48, 6), (64, 4), (96, 6)])
def test_vgg_pools_before_its_last_block_only_when_images_are_large(size, last, read):
    assert read(build("vgg8", 7).eval(), torch.rand(1, 3, size, size))["stage4"].shape[-1] == last
