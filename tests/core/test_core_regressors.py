"""Connectors of one convolution, resizing by means, and a connector for each of several layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.connectors import AsMap, Each, Resize, map_shape, projection, regression


@pytest.mark.parametrize(("teacher", "kind", "kernel"), [
    ((12, 8, 8), nn.Conv2d, 1), ((12, 4, 4), nn.Conv2d, 3), ((12, 16, 16), nn.ConvTranspose2d, 4),
    ((12, 3, 3), nn.Conv2d, 1), ((12, 2, 2), nn.Conv2d, 1), ((12, 20, 20), nn.Conv2d, 1), ((12,), nn.Conv2d, 1),
    ((17, 12), nn.Conv2d, 3)])
def test_a_regression_reaches_any_size_by_the_published_convolution_where_there_is_one(teacher, kind, kernel):
    connector = regression((8, 8, 8), teacher)
    assert connector(torch.randn(2, 8, 8, 8)).shape == (2, *map_shape(teacher))
    assert type(connector[1]) is kind
    assert connector[1].kernel_size == (kernel, kernel)
    assert sum(p.numel() for p in connector.parameters()) == 8 * 12 * kernel**2 + 12 + 2 * 12


@pytest.mark.parametrize("student", [(16,), (17, 16), (2, 16)])
def test_a_regression_starts_from_tokens_and_vectors_too(student):
    assert regression(student, (12, 4, 4))(torch.randn(2, *student)).shape == (2, 12, 4, 4)


def test_a_regression_is_convolution_norm_and_activation():
    x = torch.randn(4, 8, 8, 8)
    plain = regression((8, 8, 8), (12, 4, 4), activation=False)
    y = F.conv2d(x, plain[1].weight, plain[1].bias, stride=2, padding=1)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(plain(x), y, rtol=1e-4, atol=1e-5)
    active = regression((8, 8, 8), (12, 4, 4))
    active[1].load_state_dict(plain[1].state_dict())
    torch.testing.assert_close(active(x), y.relu(), rtol=1e-4, atol=1e-5)


def test_other_sizes_are_shrunk_by_means_and_grown_by_neighbours():
    x = torch.randn(4, 8, 8, 8)
    connector = regression((8, 8, 8), (12, 2, 2), activation=False).eval()
    y = F.conv2d(x, connector[1].weight, connector[1].bias).unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5))
    torch.testing.assert_close(connector(x), y / (1 + 1e-5) ** 0.5, rtol=1e-4, atol=1e-5)


def test_a_projection_keeps_the_size_and_is_drawn_by_its_outputs():
    torch.manual_seed(0)
    connector = projection((64, 4, 4), (96, 9, 9))
    assert connector(torch.randn(2, 64, 4, 4)).shape == (2, 96, 4, 4)
    assert sum(p.numel() for p in connector.parameters()) == 64 * 96 + 2 * 96
    assert connector[1].weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.03)
    assert projection((17, 8), (12, 4, 4))(torch.randn(2, 17, 8)).shape == (2, 12, 4, 4)


def test_resizing_by_means_takes_every_place():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(Resize((2, 2), average=True)(x), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert torch.equal(Resize((2, 8), average=True)(x), x.unflatten(2, (2, 2)).mean(3).repeat_interleave(2, dim=3))
    assert Resize((4, 4), average=True)(x) is x
    assert Resize((1, 1), average=True)(x).item() == 7.5


def test_each_layer_has_its_connector():
    scale = nn.Linear(3, 2)
    one, other = torch.randn(4, 3), torch.randn(4, 5)
    first, second = Each(scale, AsMap())(one, other)
    assert torch.equal(first, scale(one))
    assert torch.equal(second, other[:, :, None, None])
    with pytest.raises(ValueError, match="zip"):
        Each(scale)(one, other)
