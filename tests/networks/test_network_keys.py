"""Parameter names are those of the published weights: specs/models.md section 2."""

from __future__ import annotations

import re

import pytest

from limbeck.networks import build

BN = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
PATTERNS = {
    "resnet8 resnet20 resnet110 resnet8x4 resnet32x4": (
        r"conv1\.weight", rf"bn1{BN}", r"layer[123]\.\d+\.conv[12]\.weight", rf"layer[123]\.\d+\.bn[12]{BN}",
        r"layer[123]\.0\.downsample\.0\.weight", rf"layer[123]\.0\.downsample\.1{BN}", r"fc\.(weight|bias)"),
    "wrn_16_2 wrn_40_1 wrn_28_4": (
        r"conv1\.weight", rf"block[123]\.layer\.\d+\.bn[12]{BN}", r"block[123]\.layer\.\d+\.conv[12]\.weight",
        r"block[123]\.layer\.0\.convShortcut\.weight", rf"bn1{BN}", r"fc\.(weight|bias)"),
    "vgg8 vgg13 vgg19": (
        r"block[0-4]\.(0|3|6|9)\.(weight|bias)", rf"block[0-4]\.(1|4|7|10){BN}", r"classifier\.(weight|bias)"),
    "mobilenetv2": (
        r"conv[12]\.0\.weight", rf"conv[12]\.1{BN}", r"blocks\.[0-6]\.\d\.conv\.[036]\.weight",
        rf"blocks\.[0-6]\.\d\.conv\.[147]{BN}", r"classifier\.0\.(weight|bias)"),
    "mobilenetv1": (
        r"model\.0\.0\.weight", rf"model\.0\.1{BN}", r"model\.([1-9]|1[0-3])\.[03]\.weight",
        rf"model\.([1-9]|1[0-3])\.[14]{BN}", r"fc\.(weight|bias)"),
    "shufflev1": (
        r"conv1\.weight", rf"bn1{BN}", r"layer[123]\.[0-7]\.conv[123]\.weight", rf"layer[123]\.[0-7]\.bn[123]{BN}",
        r"linear\.(weight|bias)"),
    "shufflev2": (
        r"conv[12]\.weight", rf"bn[12]{BN}", r"layer[123]\.0\.conv[1-5]\.weight", rf"layer[123]\.0\.bn[1-5]{BN}",
        r"layer[123]\.[1-7]\.conv[123]\.weight", rf"layer[123]\.[1-7]\.bn[123]{BN}", r"linear\.(weight|bias)"),
    "resnet18 resnet50": (
        r"conv1\.weight", rf"bn1{BN}", r"layer[1-4]\.\d\.conv[123]\.weight", rf"layer[1-4]\.\d\.bn[123]{BN}",
        r"layer[1-4]\.0\.shortcut\.0\.weight", rf"layer[1-4]\.0\.shortcut\.1{BN}", r"linear\.(weight|bias)"),
}


@pytest.mark.parametrize(("names", "patterns"), PATTERNS.items())
def test_keys_are_the_published_ones(names, patterns):
    used = set()
    for name in names.split():
        for key in build(name, 10).state_dict():
            fitting = [pattern for pattern in patterns if re.fullmatch(pattern, key)]
            assert fitting, f"{name}: {key}"
            used.update(fitting)
    assert used == set(patterns)


@pytest.mark.parametrize(("name", "stages"), [
    ("resnet20", "23"), ("resnet8x4", "123"), ("resnet18", "234"), ("resnet50", "1234"), ("wrn_16_1", "23"),
    ("wrn_16_2", "123")])
def test_projections_are_where_the_width_changes(name, stages):
    keys = build(name, 10).state_dict()
    projected = {key.split(".")[0][-1] for key in keys if re.search(r"downsample|shortcut|convShortcut", key)}
    assert projected == set(stages)


def test_convolutions_start_from_fan_out_and_classifiers_as_published():
    network = build("wrn_28_4", 10)
    conv = network.block3.layer[1].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert network.fc.bias.abs().max() == 0
    assert build("vgg8", 10).classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert build("vgg8", 10).block4[0].bias.abs().max() == 0
    depthwise = build("mobilenetv2", 10).blocks[6][0].conv[3].weight
    assert depthwise.std().item() == pytest.approx((2 / (9 * 480)) ** 0.5, rel=0.05)


def test_ffsds_last_norm_has_its_own_momentum():
    network = build("ffsd_wrn_16_2", 10)
    assert network.bn1.momentum == 0.9
    assert network.layer3[1].bn1.momentum == 0.1
    assert network.layer2[0].conv2.stride == (2, 2)
    assert network.layer2[0].conv1.stride == (1, 1)
