"""Second derivatives through fused kernels equal PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.derivatives.twice import FusedTwice

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (3, 4, 5, 6)),
    "with bias": (lambda: nn.Conv2d(4, 6, 1), (3, 4, 5, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (3, 4, 7, 6)),
    "in groups": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=(1, 0), bias=False), (3, 4, 5, 6)),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2), (3, 4, 7, 6)),
    "padded by name": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (3, 4, 5, 6)),
    "norm of maps": (lambda: nn.BatchNorm2d(4), (3, 4, 5, 6)),
    "norm of vectors": (lambda: nn.BatchNorm1d(4), (7, 4)),
    "norm without weights": (lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 5, 6)),
}


@pytest.fixture
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A layer in float64 with weights of no special value, and its input."""
    torch.manual_seed(0)
    build, shape = LAYERS[request.param]
    layer = build().double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def second(layer: nn.Module, x: Tensor, knob: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a random product of the first gradients, which depend on a knob as well."""
    loss = (knob * layer(x).sin()).square().sum()
    first = torch.autograd.grad(loss, [x, *layer.parameters()], create_graph=True)
    chance = torch.Generator().manual_seed(1)
    product = sum((torch.randn(g.shape, generator=chance, dtype=g.dtype) * g).sum() for g in first)
    return list(torch.autograd.grad(product, inputs))


@pytest.mark.parametrize("case", LAYERS, indirect=True)
def test_second_derivatives_are_pytorchs(case: tuple[nn.Module, Tensor]) -> None:
    layer, x = case
    knob = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inputs = [knob, x, *layer.parameters()]
    expected = second(layer, x, knob, inputs)
    with FusedTwice():
        found = second(layer, x, knob, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", LAYERS, indirect=True)
def test_what_only_shapes_the_loss_is_reached_without_the_rest(case: tuple[nn.Module, Tensor]) -> None:
    layer, x = case
    knob = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (expected,) = second(layer, x, knob, [knob])
    with FusedTwice(through=False):
        (found,) = second(layer, x, knob, [knob])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("wanted", ["input", "weight", "knob"])
def test_a_gradient_of_one_alone(wanted: str) -> None:
    """A cotangent that does not arrive, or a gradient nobody wants, is no mistake."""
    torch.manual_seed(0)
    x, w = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5, 5), (4, 3, 3, 3)))
    knob = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = []
    for mode in (FusedTwice(), None):
        with mode or torch.enable_grad():
            loss = (knob * F.batch_norm(F.conv2d(x, w), None, None, *torch.ones(2, 4).double(), True).square()).sum()
        (first,) = torch.autograd.grad(loss, w if wanted == "weight" else x, create_graph=True)
        last = {"input": x, "weight": w, "knob": knob}[wanted]
        found.append(torch.autograd.grad(first.square().sum(), last)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3)], ids=["convolution", "norm"])
def test_values_and_running_statistics_are_the_layers_own(layer: nn.Module) -> None:
    x, expected = torch.randn(2, 3, 5, 5), []
    start = {name: b.clone() for name, b in layer.named_buffers()}
    for mode in (torch.enable_grad(), FusedTwice()):
        layer.load_state_dict(start, strict=False)
        with mode:
            expected.append([layer(x), *(b.clone() for b in layer.buffers())])
    for one, other in zip(*expected, strict=True):
        assert torch.equal(one, other)
