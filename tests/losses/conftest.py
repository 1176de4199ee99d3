"""How a loss is compared with a second, plainer way to compute it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


def _agree(loss: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor, learn: tuple[int, ...] = (0,)):
    """Asserts one value and one gradient at the inputs that learn, in float64 to 1e-6 and in float32 to 1e-4."""
    for dtype, tolerance in TOLERANCE.items():
        results = []
        for function in (loss, plain):
            given = [x.detach().clone().to(dtype) if x.is_floating_point() else x for x in inputs]
            for i in learn:
                given[i].requires_grad_()
            value = function(*given)
            results.append((value, *torch.autograd.grad(value, [given[i] for i in learn])))
        for ours, theirs in zip(*results, strict=True):
            assert ours.dtype == dtype
            scale = max(1e-3, theirs.abs().max().item())
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * scale)


@pytest.fixture
def agree() -> Callable[..., None]:
    return _agree


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Fixed normal numbers in float64, others with every call."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
