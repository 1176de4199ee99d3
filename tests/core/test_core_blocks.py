"""Blocks of any network: residual blocks of the zoo, every block of a transformer, stages where there are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from core_tiny import Plain, Residual, Tokens, network, sequential
from torch import nn

from limbeck.networks import build
from limbeck.taps.blocks import blocks


@pytest.mark.parametrize(("name", "count", "first", "last"), [
    ("resnet20", 9, "layer1.0", "layer3.2"), ("resnet110", 54, "layer1.0", "layer3.17"),
    ("resnet8x4", 3, "layer1.0", "layer3.0"), ("wrn_40_2", 18, "block1.layer.0", "block3.layer.5"),
    ("wrn_16_2", 6, "block1.layer.0", "block3.layer.1"), ("resnet50", 16, "layer1.0", "layer4.2"),
    ("mobilenetv2", 17, "blocks.0.0", "blocks.6.0"), ("shufflev1", 16, "layer1.0", "layer3.3"),
    ("vgg8", 4, "relu1", "relu4"), ("googlenet", 3, "inception_b3", "inception_b5")])
def test_the_zoos_blocks(name: str, count: int, first: str, last: str) -> None:
    with torch.device("meta"):
        module = build(name, 4)
    stages = sorted(tap for tap in module.taps if tap.startswith("stage") and tap[5:].isdigit())
    found = blocks(module, [module.taps[stage] for stage in stages])
    assert (len(found), found[0], found[-1]) == (count, first, last)


def test_networks_that_declare_nothing() -> None:
    assert network(Plain()).blocks == ("stage1", "stage2")
    assert network(Residual()).blocks == ("layer1.0", "layer2.0")
    flat = network(sequential())
    assert flat.blocks == tuple(flat.addresses[stage] for stage in flat.stages)
    assert network(Residual()).shape("layer2.0") == (8, 8, 8)
    tokens = network(Tokens())
    assert len(tokens.stages) == 4
    assert tokens.blocks == tuple(f"blocks.{i}:map" for i in range(8))


@pytest.mark.parametrize(("build_one", "stages", "count", "last"), [
    (torchvision.models.vit_b_16, [f"encoder.layers.encoder_layer_{i}" for i in (2, 5, 8, 11)], 12,
     "encoder.layers.encoder_layer_11"),
    (torchvision.models.convnext_tiny, [f"features.{i}" for i in (1, 3, 5, 7)], 18 + 3, "features.7.2"),
    (torchvision.models.densenet121, [f"features.denseblock{i}" for i in (1, 2, 3, 4)], 4, "features.denseblock4"),
    (lambda: timm.create_model("resnet18"), [f"layer{i}" for i in (1, 2, 3, 4)], 8, "layer4.1"),
    (lambda: timm.create_model("convnext_atto"), [f"stages.{i}" for i in range(4)], 12, "stages.3.blocks.1")])
def test_networks_of_other_libraries(build_one: Callable[[], nn.Module], stages: list[str], count: int,
                                     last: str) -> None:
    with torch.device("meta"):
        found = blocks(build_one(), stages)
    assert (len(found), found[-1]) == (count, last)
