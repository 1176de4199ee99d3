"""Convolution and batch norm whose gradients have gradients, each by the fused kernels that the first ones have.

PyTorch differentiates a backward pass of a convolution by convolutions with kernels as large as the map, and one of
batch norm by some thirty elementwise operations. Both are compositions of what their own backward kernels compute:
* a convolution y = x * w is bilinear, so is its backward (g_x, g_w) of (g, x, w). Towards cotangents h of g_x and k of
  g_w that of g is h * w + x * k, and those of x and w are the backward of (g, h, k).
* batch norm in train mode has x^ = (x - mean) s and g_x = w A g, with A = s (I - 1 1^T / m - x^ x^^T / m) symmetric for
  each channel of m entries; see `_norm_twice` for what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_How = tuple[list[int], list[int], list[int], int]
"""A convolution's stride, padding, dilation and groups."""

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class FusedTwice(TorchFunctionMode):
    """Within this mode the passes that run can be differentiated twice at the price above; other functions as before.

    Args:
        through: Whether the gradients are differentiated by inputs and parameters too; False keeps their dependence on
            the gradient that arrived alone, a third of the work.
    """

    def __init__(self, through: bool = True):
        super().__init__()
        self.through = through

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.conv2d:
            given = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1,
                     **dict(zip(_CONVOLUTION, args, strict=False)), **(kwargs or {})}
            if not isinstance(given["padding"], str) and given["input"].ndim == 4:
                how = (_pair(given["stride"]), _pair(given["padding"]), _pair(given["dilation"]), given["groups"])
                return _Convolution.apply(given["input"], given["weight"], given["bias"], how, self.through)
        if func is F.batch_norm:
            given = {"momentum": 0.1, "eps": 1e-5, **dict(zip(_NORM, args, strict=False)), **(kwargs or {})}
            if given.get("training") and given.get("weight") is not None and given.get("bias") is not None:
                return _Norm.apply(*(given[name] for name in _NORM if name != "training"), self.through)
        return func(*args, **(kwargs or {}))


def _pair(number: Any) -> list[int]:
    return [number, number] if isinstance(number, int) else list(number)


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _How, through: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.through = how, through
        return torch.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors if ctx.through else (t.detach() for t in ctx.saved_tensors)
        of_x, of_weight = _ConvolutionBackward.apply(g, x, weight, ctx.how, ctx.needs_input_grad[:2])
        return of_x, of_weight, g.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None, None


class _ConvolutionBackward(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, how: _How, wanted: tuple[bool, bool]) -> Any:
        ctx.save_for_backward(g, x, weight)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return _backward(g, x, weight, how, *wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor | None, k: Tensor | None) -> Any:
        g, x, weight = ctx.saved_tensors
        parts = [torch.conv2d(h, weight, None, *ctx.how)] if h is not None else []
        parts += [torch.conv2d(x, k, None, *ctx.how)] if k is not None else []
        of_g = sum(parts[1:], *parts[:1]) if parts and ctx.needs_input_grad[0] else None
        of_x, of_weight = ctx.needs_input_grad[1] and k is not None, ctx.needs_input_grad[2] and h is not None
        shaped = x if h is None else h, weight if k is None else k  # what is not given serves for its shape alone
        return of_g, *_backward(g, *shaped, ctx.how, of_x, of_weight), None, None


def _backward(g: Tensor, x: Tensor, weight: Tensor, how: _How, of_x: bool, of_weight: bool) -> Any:
    """Gradients of a convolution by its input and its weight, as far as they are wanted."""
    if not (of_x or of_weight):
        return None, None
    stride, padding, dilation, groups = how
    return torch.ops.aten.convolution_backward(
        g, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [of_x, of_weight, False])[:2]


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor, bias: Tensor,
                momentum: float, eps: float, through: bool) -> Tensor:
        out, center, scale = torch.native_batch_norm(x, weight, bias, mean, var, True, momentum, eps)
        ctx.save_for_backward(x, weight, center, scale)
        ctx.eps, ctx.through = eps, through
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight, center, scale = ctx.saved_tensors
        if not ctx.through:
            x, weight = x.detach(), weight.detach()
        of_x, of_weight, of_bias = _NormBackward.apply(g, x, weight, center, scale, ctx.eps)
        return of_x, None, None, of_weight, of_bias, None, None, None


class _NormBackward(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, center: Tensor, scale: Tensor, eps: float) -> Any:
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            g, x, weight, None, None, center, scale, True, eps, [True, True, True])
        ctx.save_for_backward(g, x, weight, center, scale, of_weight, of_bias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return of_x, of_weight, of_bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor | None, k: Tensor | None, b: Tensor | None) -> Any:
        g, x, weight, center, scale, along, total = ctx.saved_tensors
        h = torch.zeros_like(x) if h is None else h
        k, b = (torch.zeros_like(center) if t is None else t for t in (k, b))
        of_g, of_x, of_weight = _norm_twice(g, h, k, b, x, weight, center, scale, along, total, ctx.eps,
                                            ctx.needs_input_grad[1])
        return of_g, of_x, of_weight if ctx.needs_input_grad[2] else None, None, None, None


def _norm_twice(g: Tensor, h: Tensor, k: Tensor, b: Tensor, x: Tensor, weight: Tensor, center: Tensor, scale: Tensor,
                along: Tensor, total: Tensor, eps: float, of_x: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """From cotangents (h, k, b) of batch norm's gradients to those of g, x and w.

    With a = <x^, g> and t = <1, g> (the gradients of weight and bias), a' and t' the same of h, all by channel,
        of g = w A h + k x^ + b,        of w = <A g, h> = s (<g, h> - t t' / m - a a' / m) = r,
        of x = -w r s x^ / m + (k - w s a' / m) A g - (w s a / m) A h,
    as s moves by -s^2 <x^, dx> / m and x^ by A dx. Every part is a multiple of g, h, x or 1.
    """
    shape = (1, -1, *[1] * (x.ndim - 2))
    m = x.numel() // x.shape[1]
    of_g, along_h, total_h = torch.ops.aten.native_batch_norm_backward(
        h, x, weight, None, None, center, scale, True, eps, [True, True, True])
    slope = k * scale
    of_g = of_g.addcmul_(x, slope.view(shape)).add_((b - slope * center).view(shape))
    if not of_x:
        return of_g, None, None
    dims = [0, *range(2, x.ndim)]
    of_weight = scale * ((g * h).sum(dims) - (total * total_h + along * along_h) / m)
    by_g, by_h = scale * (k - weight * scale * along_h / m), -scale * scale * weight * along / m
    by_x = -(weight * of_weight * scale + by_g * along + by_h * along_h) / m * scale
    rest = -(by_g * total + by_h * total_h) / m - by_x * center
    combined = torch.addcmul(rest.view(shape), h, by_h.view(shape))
    return of_g, combined.addcmul_(g, by_g.view(shape)).addcmul_(x, by_x.view(shape)), of_weight
