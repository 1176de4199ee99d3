"""Batch norm in forward mode in one kernel, where PyTorch takes a dozen elementwise operations.

In train mode y = w x^ + b with x^ = (x - mean) / std, and x^ moves by A x' with A = (I - 1 1^T / m - x^ x^^T / m) / std
for each channel of m entries. A is symmetric, so the backward kernel, which applies A^T w, gives w A x' as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FusedBatchNorm(TorchFunctionMode):
    """Within this mode batch norm carries tangents through its fused kernels; every other function is as it was."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            given = dict(zip(("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
                             args, strict=False), **(kwargs or {}))
            moving = forward_ad.unpack_dual(given["input"]).tangent is not None
            if given.get("training") and given.get("weight") is not None and moving:
                return _norm(**given)
        return func(*args, **(kwargs or {}))


def _norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor, bias: Tensor,
          training: bool, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    (x, moved), (w, moved_w), (b, moved_b) = (forward_ad.unpack_dual(t) for t in (input, weight, bias))
    out, mean, scale = torch.native_batch_norm(x, w, b, running_mean, running_var, True, momentum, eps)
    change = torch.ops.aten.native_batch_norm_backward(
        moved, x, w, running_mean, running_var, mean, scale, True, eps, [True, False, False])[0]
    shape = (1, -1, *[1] * (x.ndim - 2))
    offset = torch.zeros_like(mean) if moved_b is None else moved_b
    if moved_w is not None:  # x^ w' as one product; its mean goes with the offset
        slope = moved_w * scale
        change, offset = change.addcmul_(x, slope.view(shape)), offset - slope * mean
    if moved_w is not None or moved_b is not None:
        change = change.add_(offset.view(shape))
    return forward_ad.make_dual(out, change)
