"""Losses of maps whose channels lie innermost in memory: one order throughout, there and back, and the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import limbeck.losses as L
from limbeck.losses.sizes import squared_error
from limbeck.methods.l2tww import weighed_match

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared_error": squared_error,
    "hint": L.hint,
    "weighted_hint": lambda s, t: L.weighted_hint(s, t, torch.ones(len(s))),
    "hcl": L.hcl,
    "vid": lambda s, t: L.vid(s, t, torch.full((s.shape[1],), 2.0)),
    "unit_mse": L.unit_mse,
    "attention_transfer": L.attention_transfer,
    "attention_transfer, as printed": lambda s, t: L.attention_transfer(s, t, mode="paper"),
    "factor_transfer": L.factor_transfer,
    "diversity_loss": L.diversity_loss,
    "weighed_match": lambda s, t: weighed_match(s, t, torch.ones(len(s)), torch.ones(s.shape[:2])),
}


class Orders(TorchDispatchMode):
    """Names the operations that meet maps in both orders, or copy one from one order into the other."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        maps = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.ndim == 4]
        rows = any(x.is_contiguous() and not _innermost(x) for x in maps)
        innermost = any(_innermost(x) and not x.is_contiguous() for x in maps)
        if rows and innermost and func is not torch.ops.aten.permute.default:  # a view, which moves nothing
            self.found.append(str(func))
        return out


def _innermost(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", LOSSES)
def test_one_order_in_memory_and_the_same_values(name: str) -> None:
    torch.manual_seed(0)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        s, t = (x.contiguous(memory_format=layout) for x in torch.randn(2, 3, 5, 8, 8, generator=torch.manual_seed(1)))
        s.requires_grad_()
        with Orders() as orders:
            value = LOSSES[name](s, t)
            (gradient,) = torch.autograd.grad(value, s)
        assert orders.found == []
        assert gradient.is_contiguous(memory_format=layout)
        found.append((value, gradient))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_the_tool_sees_two_orders() -> None:
    one = torch.randn(3, 5, 8, 8)
    with Orders() as orders:
        one + one.contiguous(memory_format=torch.channels_last)
    assert orders.found
