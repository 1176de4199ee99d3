"""Representations made comparable: views as maps, resizing, gates and DistPro's transforms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.connectors import AsMap, Resize, as_map, map_shape
from limbeck.errors import Mistake
from limbeck.transforms import TRANSFORMS, Gate, transform


def test_maps_stay_and_vectors_become_a_point():
    x, y = torch.randn(2, 8, 4, 5), torch.randn(2, 8)
    assert as_map(x) is x
    assert torch.equal(as_map(y), y[:, :, None, None])
    assert torch.equal(AsMap()(y), as_map(y))


@pytest.mark.parametrize("before", [0, 1, 2])
def test_tokens_become_a_grid_without_those_before_it(before):
    grid = torch.randn(2, 8, 4, 4)
    tokens = torch.cat([torch.full((2, before, 8), 9.0), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(as_map(tokens), grid)


@pytest.mark.parametrize(("shape", "expected"), [((8, 4, 5), (8, 4, 5)), ((197, 192), (192, 14, 14)),
                                                 ((64,), (64, 1, 1))])
def test_shapes_of_maps_are_known_without_data(shape, expected):
    assert map_shape(shape) == expected


def test_resizing_is_by_nearest_neighbours_and_to_a_point_by_the_mean():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert Resize((4, 4))(x) is x
    assert torch.equal(Resize((2, 2))(x), torch.tensor([[[[0.0, 2.0], [8.0, 10.0]]]]))
    assert torch.equal(Resize((8, 4))(x), x.repeat_interleave(2, dim=2))
    assert Resize((1, 1))(x).item() == 7.5
    assert Resize((3, 1))(x).shape == (1, 1, 3, 1)


def test_a_gate_multiplies_with_one_unsquashed_channel():
    gate, x = Gate(8), torch.randn(2, 8, 4, 4)
    expected = x * torch.einsum("nchw,c->nhw", x, gate.attention.weight.view(-1))[:, None]
    torch.testing.assert_close(gate(x), expected)
    assert gate(x).abs().max() > 1


@pytest.mark.parametrize("teacher", [(12, 8, 8), (6, 16, 16), (24, 1, 1), (20,), (17, 10)])
@pytest.mark.parametrize("student", [(8, 16, 16), (16,), (26, 12)])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_every_transform_goes_from_any_tap_to_the_teachers_map(kind, student, teacher):
    connector, x = transform(kind, student, teacher), torch.randn(3, *student, requires_grad=True)
    output = connector(x)
    assert output.shape == (3, *map_shape(teacher))
    output.square().mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in connector.parameters())


def layers(kind: str) -> list[str]:
    """A transform from 8 channels to 12 of another size, layer by layer."""
    named = {nn.Conv2d: lambda m: f"{m.kernel_size[0]}x{m.kernel_size[0]} {m.in_channels}>{m.out_channels}",
             nn.BatchNorm2d: lambda m: "BN", nn.ReLU: lambda m: "ReLU", Gate: lambda m: "Attn", Resize: lambda m: "Up"}
    return [named[type(m)](m) for m in list(transform(kind, (8, 16, 16), (12, 8, 8)))[1:]]


def test_transforms_have_the_layers_of_the_released_code():
    """specs/distpro.md section 4, with a middle width of min(512, 12, 8)."""
    assert layers("c1") == ["1x1 8>12", "BN", "Up"]
    assert layers("c2") == ["1x1 8>8", "BN", "Attn", "Up", "3x3 8>12", "BN"]
    assert layers("c3") == ["1x1 8>8", "BN", "Attn", "Up", "3x3 8>8", "BN", "3x3 8>12", "BN"]
    assert layers("complex") == ["3x3 8>8", "BN", "ReLU", "Attn", "3x3 8>8", "BN", "ReLU", "Up", "3x3 8>12", "BN"]


def test_a_transform_computes_its_layers_in_order():
    connector, x = transform("c2", (8, 16, 16), (12, 8, 8)).eval(), torch.randn(2, 8, 16, 16)
    first, last, gate = connector[1].weight, connector[5].weight, connector[3].attention.weight
    inner = F.conv2d(x, first) / (1 + 1e-5) ** 0.5
    inner = F.interpolate(inner * F.conv2d(inner, gate), (8, 8), mode="nearest")
    torch.testing.assert_close(connector(x), F.conv2d(inner, last, padding=1) / (1 + 1e-5) ** 0.5)


def test_the_middle_is_the_narrowest_and_at_most_512():
    assert transform("c3", (600, 4, 4), (700, 4, 4))[1].out_channels == 512
    assert transform("c3", (600, 4, 4), (30, 4, 4))[1].out_channels == 30


def test_convolutions_are_drawn_by_their_outputs():
    torch.manual_seed(0)
    weight = transform("complex", (64, 8, 8), (64, 8, 8))[1].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert transform("complex", (64, 8, 8), (64, 8, 8))[1].bias is None


def test_an_unknown_transform_is_a_mistake():
    with pytest.raises(Mistake, match=r"no transform 'complx'; closest: \['complex'"):
        transform("complx", (8, 4, 4), (8, 4, 4))
