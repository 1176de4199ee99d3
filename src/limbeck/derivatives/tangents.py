"""Forward mode at the price of the tangents alone, as far as a network's convolutions, batch norms and ReLUs go.

A pass with tangents runs where the step's own forward pass ran. What those gave is `Kept`, and `Replayed` when the
tangents come, so that a convolution y = x * w costs x' * w + x * w' and not y once more.

PyTorch takes a dozen elementwise operations for batch norm; here it is one kernel. In train mode y = w x^ + b with
x^ = (x - mean) / std, and x^ moves by A x' with A = (I - 1 1^T / m - x^ x^^T / m) / std for each channel of m entries.
A is symmetric, so the backward kernel, which applies A^T w, gives w A x' as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ARGUMENTS = {
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    F.relu: ("input", "inplace")}


@dataclass(frozen=True)
class Result:
    """What a function gave.

    Attributes:
        function: Which function.
        value: Its result.
        version: Of the result, by which one sees whether it was overwritten since.
        statistics: Of a batch norm, the mean and 1 / std that it found.
    """

    function: Callable[..., Any]
    value: Tensor
    version: int
    statistics: tuple[Tensor, ...] = ()


class Kept(TorchFunctionMode):
    """Within this mode what convolutions and ReLUs give is kept, in order, and on a CPU what batch norms in train mode.

    Attributes:
        values: What was kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: deque[Result] = deque()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _given(func, args, kwargs)
        if given is None:
            return func(*args, **(kwargs or {}))
        if func is F.batch_norm:
            out, *statistics = _kernel(**given)
        else:
            out, statistics = func(**given), []
        self.values.append(Result(func, out.detach(), out._version, tuple(statistics)))
        return out


class Replayed(TorchFunctionMode):
    """Within this mode, in which what ran under `Kept` runs again, each function gives that and its tangent.

    Args:
        values: What was kept; each is let go when it has served.
    """

    def __init__(self, values: deque[Result]):
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _given(func, args, kwargs)
        if given is not None and self.values:
            kept = self.values.popleft()
            if kept.function is func and kept.value._version == kept.version:
                return _MOVED[func](kept.value, *kept.statistics, **given)
        return func(*args, **(kwargs or {}))


def _given(func: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any] | None:
    """The arguments, by name, of a call whose result is kept; None of any other.

    A ReLU in place leaves nothing to be replayed onto; batch norms run by several kernels on a GPU.
    """
    if func not in _ARGUMENTS:
        return None
    given = dict(zip(_ARGUMENTS[func], args, strict=False), **(kwargs or {}))
    if (func is F.relu and given.get("inplace")) or (func is F.batch_norm and not _fused(given, on="cpu")):
        return None
    return given


def _fused(given: dict[str, Any], on: str | None = None) -> bool:
    """Whether a batch norm is, by its arguments, in train mode and has weights; and on this device, if one is named.

    One of a single value a channel is not: PyTorch refuses it, and is to.
    """
    x, whole = given["input"], given.get("weight") is not None and given.get("bias") is not None
    return bool(given.get("training")) and whole and x.numel() > x.shape[1] and on in (None, x.device.type)


def _kernel(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor, bias: Tensor,
            training: bool, momentum: float = 0.1, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm; its result, mean and 1 / std."""
    return torch.native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)


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


def _relu(value: Tensor, input: Tensor, inplace: bool = False) -> Tensor:
    moved = forward_ad.unpack_dual(input).tangent
    if moved is None:
        return value
    change: Tensor = torch.ops.aten.threshold_backward(moved, value, 0)
    return forward_ad.make_dual(value, change)


def _norm(out: Tensor, mean: Tensor, scale: Tensor, input: Tensor, running_mean: Tensor | None,
          running_var: Tensor | None, weight: Tensor, bias: Tensor, training: bool, momentum: float = 0.1,
          eps: float = 1e-5) -> Tensor:
    (x, moved), (w, moved_w), (_, moved_b) = (forward_ad.unpack_dual(t) for t in (input, weight, bias))
    if moved is None:
        if moved_w is None and moved_b is None:
            return out
        moved = torch.zeros_like(out)
    change = torch.ops.aten.native_batch_norm_backward(
        moved, x, w, running_mean, running_var, mean, scale, True, eps, [True, False, False])[0]
    if moved_w is None and moved_b is None:
        return forward_ad.make_dual(out, change)
    slope = torch.zeros_like(mean) if moved_w is None else moved_w * scale
    offset = (0 if moved_b is None else moved_b) - slope * mean  # x^ w' as one product; its mean goes with the offset
    if x.dtype in (torch.bfloat16, torch.float16):  # there slope x + offset is fast as a batch norm in eval mode
        zeros, ones = torch.zeros_like(mean), torch.ones_like(mean)
        change = change.add_(torch.native_batch_norm(x, slope, offset, zeros, ones, False, 0.0, 0.0)[0])
    else:
        shape = (1, -1, *[1] * (x.ndim - 2))
        change = change.addcmul_(x, slope.view(shape)).add_(offset.view(shape))
    return forward_ad.make_dual(out, change)


_MOVED: dict[Callable[..., Any], Callable[..., Tensor]] = {F.conv2d: _convolution, F.batch_norm: _norm, F.relu: _relu}


class FusedBatchNorm(TorchFunctionMode):
    """Within this mode batch norm carries tangents through its fused kernels; every other function is as it was."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            given = dict(zip(_ARGUMENTS[func], args, strict=False), **(kwargs or {}))
            if _fused(given) and forward_ad.unpack_dual(given["input"]).tangent is not None:
                primal = {name: forward_ad.unpack_dual(x).primal if isinstance(x, Tensor) else x
                          for name, x in given.items()}
                return _norm(*_kernel(**primal), **given)
        return func(*args, **(kwargs or {}))
