"""Batch norm's tangents through the fused kernels equal PyTorch's own forward mode."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn
from torch.func import functional_call

from limbeck.tangents import FusedBatchNorm


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("moving", [("weight", "bias"), ()], ids=["all", "input alone"])
@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (7, 4)])
def test_tangents_are_those_of_plain_forward_mode(shape: tuple[int, ...], moving: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4).double()
    nn.init.normal_(norm.weight)
    x, direction = torch.randn(2, *shape, dtype=torch.float64)
    along = {name: torch.randn(4, dtype=torch.float64) for name in moving}
    found = []
    for fused in (False, True):
        buffers = {name: b.clone() for name, b in norm.named_buffers()}
        with torch.no_grad(), forward_ad.dual_level():
            values = {n: forward_ad.make_dual(p.detach(), along[n]) if n in along else p.detach()
                      for n, p in norm.named_parameters()}
            dual = forward_ad.make_dual(x, direction)
            if fused:
                with FusedBatchNorm():
                    out = functional_call(norm, {**values, **buffers}, dual)
            else:
                out = functional_call(norm, {**values, **buffers}, dual)
            found.append((*forward_ad.unpack_dual(out), buffers))
    (out, change, plain), (fused_out, fused_change, own) = found
    torch.testing.assert_close(fused_out, out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused_change, change, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(own["running_var"], plain["running_var"])
