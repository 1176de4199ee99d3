"""Forward mode at the price of the tangents alone, as far as a network's convolutions and batch norms go.

A pass with tangents runs where the step's own forward pass ran. What its convolutions gave is `Kept`, and `Replayed`
when the tangents come, so that a convolution y = x * w costs x' * w + x * w' and not y once more.

PyTorch takes a dozen elementwise operations for batch norm; here it is one kernel. In train mode y = w x^ + b with
x^ = (x - mean) / std, and x^ moves by A x' with A = (I - 1 1^T / m - x^ x^^T / m) / std for each channel of m entries.
A is symmetric, so the backward kernel, which applies A^T w, gives w A x' as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Kept(TorchFunctionMode):
    """Within this mode what convolutions give is kept, in order.

    Attributes:
        values: What was kept, each with its version, by which one sees whether it was overwritten since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: deque[tuple[Tensor, int]] = deque()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.conv2d:
            self.values.append((out.detach(), out._version))
        return out


class Replayed(TorchFunctionMode):
    """Within this mode, in which the convolutions that ran under `Kept` run again, each gives that and its tangent.

    Args:
        values: What was kept; each is let go when it has served.
    """

    def __init__(self, values: deque[tuple[Tensor, int]]):
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d and self.values:
            value, version = self.values.popleft()
            if value._version == version:
                return _convolution(value, **dict(zip(_CONVOLUTION, args, strict=False)), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _convolution(value: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, **how: Any) -> Tensor:
    (x, moved), (w, moved_w) = forward_ad.unpack_dual(input), forward_ad.unpack_dual(weight)
    moved_b = None if bias is None else forward_ad.unpack_dual(bias).tangent
    changes = [] if moved is None else [F.conv2d(moved, w, **how)]
    changes += [] if moved_w is None else [F.conv2d(x, moved_w, **how)]
    changes += [] if moved_b is None else [moved_b[:, None, None].expand_as(value)]
    if not changes:
        return value
    change = changes[0]
    for other in changes[1:]:
        change = change.add_(other)
    return forward_ad.make_dual(value, change)


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
        slope = (moved_w * scale).to(x.dtype)  # operations on two types are slow
        change, offset = change.addcmul_(x, slope.view(shape)), offset - slope * mean
    if moved_w is not None or moved_b is not None:
        change = change.add_(offset.to(x.dtype).view(shape))
    return forward_ad.make_dual(out, change)
