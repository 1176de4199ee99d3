"""What stands at a tap: the activation's right side, computed once, and never overwritten."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from limbeck.networks import ZOO, build

DISTINCT = [name for name, entry in ZOO.items()
            if entry.task == "classification" and name not in ("ffsd_densenet_40_12", "ffsd_googlenet")]
FAMILIES = ("resnet20", "resnet8x4", "resnet18", "resnet50", "wrn_16_1", "wrn_16_2", "vgg8", "vgg13", "mobilenetv2",
            "mobilenetv1", "shufflev1", "shufflev2", "ffsd_wrn_16_2", "densenet_40_12", "googlenet", "digits_small")
LINEAR_ENDS = ("mobilenetv2", "mobilenetv1")  # the stage is tapped where no activation follows, or before it
RAW_STAGES = {"wrn_16_1": (1, 2, 3), "wrn_16_2": (1, 2, 3), "ffsd_wrn_16_2": (1, 2), "densenet_40_12": (1, 2)}


def stages(network: nn.Module) -> list[str]:
    return [tap for tap in network.taps if tap.startswith("stage") and not tap.endswith(".pre")]


@pytest.fixture(params=FAMILIES)
def seen(request, read):
    """The network in training mode, as it is when it learns, and its taps on two images."""
    torch.manual_seed(0)
    network = build(request.param, 10)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # otherwise every stage would be centred alike
            nn.init.normal_(layer.bias, std=0.3)
    return request.param, network, read(network, torch.rand(2, 3, 16, 16) - 0.5)


def test_stages_are_after_the_activation_and_pre_before_it(seen):
    name, network, taps = seen
    for number, stage in enumerate(stages(network), start=1):
        after, before = taps[stage], taps[f"{stage}.pre"]
        assert before.min() < 0
        if name in LINEAR_ENDS:
            assert torch.equal(after, before)
        elif number in RAW_STAGES.get(name, ()):
            assert after.min() < 0
            assert not torch.equal(after, before)
        elif name == "shufflev2":
            n, c, h, w = before.shape
            shuffled = F.relu(before).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            assert torch.equal(after, shuffled)
        else:
            assert torch.equal(after, F.relu(before))


def test_only_the_second_half_of_a_shufflev2_stage_is_before_an_activation(read):
    taps = read(build("shufflev2", 10), torch.rand(2, 3, 16, 16))
    for stage in ("stage1.pre", "stage2.pre", "stage3.pre"):
        aside, branch = taps[stage].chunk(2, dim=1)
        assert aside.min() >= 0
        assert branch.min() < 0


def test_pre_of_a_raw_stage_is_the_next_norm_of_it(read):
    network = build("wrn_16_2", 10).eval()
    taps = read(network, torch.rand(2, 3, 16, 16))
    assert torch.equal(taps["stage1.pre"], network.block2.layer[0].bn1(taps["stage1"]))
    assert torch.equal(taps["stage2.pre"], network.block3.layer[0].bn1(taps["stage2"]))
    assert torch.equal(taps["stage3.pre"], network.bn1(taps["stage3"]))


def test_pooled_is_the_classifiers_input_and_logits_its_output(seen):
    _, network, taps = seen
    path, _, side = network.taps["pooled"].partition(":")
    classifier = network.get_submodule(path)
    assert side == "in"
    assert isinstance(classifier, nn.Linear)
    assert torch.allclose(F.linear(taps["pooled"], classifier.weight, classifier.bias), taps["logits"], atol=1e-6)


def test_batch_statistics_are_updated_once(seen):
    _, network, _ = seen
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


@pytest.mark.parametrize("name", DISTINCT)
def test_taps_and_norms_name_layers_that_there_are(name):
    network = build(name, 10)
    numbers = range(1, len(stages(network)) + 1)
    canonical = {"stem", "pooled", *(f"stage{n}" for n in numbers), *(f"stage{n}.pre" for n in numbers)}
    assert set(network.taps) == canonical
    for address in network.taps.values():
        network.get_submodule(address.removesuffix(":in"))
    for path in network.norm_before_relu:
        assert isinstance(network.get_submodule(path), nn.BatchNorm2d)
    assert len(network.norm_before_relu) in (0, len(numbers))


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "wrn_16_2", "vgg13", "mobilenetv2",
                                  "digits_small"])
def test_margins_come_from_the_norm_whose_channels_the_stage_has(name, read):
    network = build(name, 10).eval()
    taps = read(network, torch.rand(1, 3, 16, 16))
    widths = [network.get_submodule(path).num_features for path in network.norm_before_relu]
    assert widths == [taps[stage].shape[1] for stage in stages(network)]


def test_margins_come_from_the_published_norms():
    # specs/models.md section 4.
    expected = {
        "resnet8x4": ("layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"),
        "resnet50": ("layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3"),
        "wrn_40_2": ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"),
        "vgg16": ("block1.4", "block2.7", "block3.7", "block4.7"),
        "mobilenetv2": ("blocks.1.1.conv.7", "blocks.2.2.conv.7", "blocks.4.2.conv.7", "blocks.6.0.conv.7"),
        "shufflev1": (),
        "shufflev2": (),
    }
    assert {name: build(name, 10).norm_before_relu for name in expected} == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_overwritten(name):
    network = build(name, 10)
    kept: list[tuple[str, torch.Tensor, int]] = []
    for path, layer in network.named_modules():
        def keep(_layer: nn.Module, inputs: tuple, output: torch.Tensor, path: str = path) -> None:
            kept.extend((path, x, x._version) for x in (*inputs, output))

        layer.register_forward_hook(keep)

    network(torch.rand(2, 3, 16, 16))

    assert [path for path, x, version in kept if x._version != version] == []
