"""Canonical taps of networks that declare none."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import timm
import torch
from core_tiny import Block, Plain, Residual, Tokens, sequential
from torch import Tensor, nn

from limbeck.taps import Reader
from limbeck.taps.stages import discover

DUMMY = torch.zeros(1, 3, 16, 16)


def test_residual_stages_are_numbered_siblings_and_end_before_a_shared_relu():
    assert discover(Residual(), DUMMY) == {
        "stage1": "layer1", "stage1.pre": "layer1.0.relu:in#2",
        "stage2": "layer2", "stage2.pre": "layer2.0.relu:in#2", "pooled": "fc:in"}


def test_stages_of_one_row_of_layers_are_the_last_at_each_resolution():
    assert discover(sequential(), DUMMY) == {
        "stage1": "features.1", "stage1.pre": "features.1:in", "stage2": "features.4", "stage2.pre": "features.4:in",
        "stage3": "features", "stage3.pre": "features.7:in", "pooled": "classifier:in"}


@pytest.mark.parametrize(("blocks", "stages"), [(8, (1, 3, 5, 7)), (12, (2, 5, 8, 11)), (4, (0, 1, 2, 3))])
def test_stages_of_a_transformer_are_evenly_spaced_blocks(blocks, stages):
    expected = {f"stage{i}{suffix}": f"blocks.{block}:map" for i, block in enumerate(stages, 1)
                for suffix in ("", ".pre")}
    assert discover(Tokens(blocks=blocks), DUMMY) == {
        **expected, "pooled": "head:in", "tokens": "norm:tokens", "cls": "norm:cls"}


def test_what_is_found_can_be_read_and_is_what_it_says():
    for module in (Residual(), sequential(), Plain()):
        taps = discover(module, DUMMY)
        outputs = Reader(module, taps, DUMMY)(torch.randn(2, 3, 16, 16))
        for stage in [tap for tap in taps if tap[5:].isdigit()]:
            torch.testing.assert_close(outputs[stage], outputs[f"{stage}.pre"].relu())
            assert outputs[f"{stage}.pre"].min() < 0
        assert outputs["pooled"].shape == (2, 8)


def test_declared_taps_win():
    module = Plain()
    assert discover(module, DUMMY) == module.taps
    module.taps = {"stage1": "stage2", "pooled": "pool"}
    assert discover(module, DUMMY) == {"stage1": "stage2", "stage1.pre": "stage2.act:in", "pooled": "pool"}
    other = Residual()
    other.taps = {"stem": "relu", "stage1.pre": "layer1.0.bn2"}
    assert discover(other, DUMMY) == {
        "stem": "relu", "stage1": "layer1", "stage1.pre": "layer1.0.bn2", "stage2": "layer2",
        "stage2.pre": "layer2.0.relu:in#2", "pooled": "fc:in"}
    assert other.taps == {"stem": "relu", "stage1.pre": "layer1.0.bn2"}  # what is declared is not added to
    other.taps = {"stage2": "layer2.0.bn2"}
    assert discover(other, DUMMY)["stage2"] == "layer2.0.bn2"


def test_a_declared_call_of_an_activation_has_that_calls_input_before_it():
    module = Residual()
    for call, before in (("layer1.0.relu", "layer1.0.relu:in"), ("layer1.0.relu#2", "layer1.0.relu:in#2")):
        module.taps = {"stage1": call}
        assert discover(module, DUMMY)["stage1.pre"] == before


def test_timm_networks_say_where_their_features_are():
    taps = discover(timm.create_model("resnet18", num_classes=3), torch.zeros(1, 3, 32, 32))
    assert taps == {
        "stem": "act1", **{f"stage{i}": f"layer{i}" for i in range(1, 5)},
        **{f"stage{i}.pre": f"layer{i}.1.act2:in" for i in range(1, 5)}, "pooled": "fc:in"}


def test_many_features_are_thinned_out():
    module = Tokens(blocks=8)
    module.feature_info = [{"module": f"blocks.{i}"} for i in range(8)] + [{"module": "elsewhere"}]
    assert [discover(module, DUMMY)[f"stage{i}"] for i in range(1, 5)] == [f"blocks.{i}:map" for i in (1, 3, 5, 7)]
    module.feature_info = SimpleNamespace(info=[{"module": "blocks.2"}, {"module": "blocks.6"}])
    assert [discover(module, DUMMY)[f"stage{i}"] for i in (1, 2)] == ["blocks.2:map", "blocks.6:map"]


class Mapped(nn.Sequential):
    """A classifier on the mean of a map."""

    def __init__(self, width: int = 8, **parts: nn.Module):
        super().__init__(OrderedDict(parts))
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("fc", nn.Linear(width, 3))


def test_a_stage_that_ends_in_no_activation_is_its_own_pre():
    def block(width_in: int, stride: int) -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Conv2d(width_in, 8, 3, stride=stride, padding=1))

    taps = discover(Mapped(part1=block(3, 1), part2=block(8, 2)), DUMMY)
    assert taps == {"stage1": "part1", "stage1.pre": "part1", "stage2": "part2", "stage2.pre": "part2",
                    "pooled": "fc:in"}


def test_the_first_of_more_than_four_stages_is_the_stem():
    blocks = {f"part{i}": Block(3 if i == 1 else 8, 8, 1 if i == 1 else 2) for i in range(1, 6)}
    taps = discover(Mapped(**blocks), torch.zeros(1, 3, 48, 48))
    assert (taps["stem"], taps["stage1"], taps["stage4"]) == ("part1", "part2", "part5")
    assert "stage5" not in taps


def test_many_blocks_of_maps_end_at_the_last_of_each_resolution():
    blocks = nn.Sequential(*(Block(3 if i == 0 else 8, 8, 2 if i == 4 else 1) for i in range(8)))
    taps = discover(Mapped(blocks=blocks), DUMMY)
    assert (taps["stage1"], taps["stage2"]) == ("blocks.3", "blocks.7")
    assert "stage3" not in taps


def test_siblings_near_the_root_come_before_those_inside_one_of_them():
    taps = discover(Mapped(part1=Block(3, 8, 1), part2=nn.Sequential(Block(8, 8, 2), Block(8, 8, 2))), DUMMY)
    assert (taps["stage1"], taps["stage2"]) == ("part1", "part2")


def test_small_numbered_side_branches_are_no_stages():
    body = nn.Sequential(Block(3, 8, 1), Block(8, 8, 2))

    class Branches(Mapped):
        def __init__(self) -> None:
            super().__init__(body=body)
            self.gate1, self.gate2 = (nn.Sequential(nn.Conv2d(3, 1, 1)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = x * self.gate1(x) * self.gate2(x[..., ::2, ::2]).repeat(1, 1, 2, 2)
            return self.fc(self.flatten(self.pool(self.body(x))))

    taps = discover(Branches(), DUMMY)
    assert (taps["stage1"], taps["stage2"]) == ("body.0", "body.1")


def test_without_a_linear_head_there_is_no_pooled_feature():
    assert discover(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), DUMMY) == {
        "stage1": "1", "stage1.pre": "1:in"}


def test_discovery_leaves_no_trace():
    module = Residual()
    module.layer1.eval()
    before = {name: b.clone() for name, b in module.named_buffers()}
    modes = {name: m.training for name, m in module.named_modules()}
    discover(module, DUMMY)
    assert not any(m._forward_hooks for m in module.modules())
    assert {name: m.training for name, m in module.named_modules()} == modes
    assert all(torch.equal(b, before[name]) for name, b in module.named_buffers())
