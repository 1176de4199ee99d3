"""A finished network as it runs in bf16: batch norms folded into the convolutions before them, weights rounded once.

A batch norm in eval mode is y -> a y + b for each channel, and after a convolution y = x * w + c a convolution as well:
    a (x * w + c) + b = x * (a w) + (a c + b),    a = weight / sqrt(variance + eps),    b = bias - a mean.
Autocast rounds the weights of convolutions and linear layers to bf16 at every pass; rounded ahead they are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from limbeck.taps import answer, clean_copy
from limbeck.taps.calls import still

_TOLERANCE = 1e-2  # of the largest logit; TF32 alone makes a tenth of it, a graph that was traced wrongly far more


def folded(module: nn.Module, dummy: Tensor, whole: Collection[str]) -> nn.Module:
    """A copy for passes under bf16 autocast; every layer stays where it is, by its name.

    Args:
        module: A network in float32; it is left as it is. One whose forward pass cannot be traced keeps its norms.
        dummy: Input, (1, C, H, W).
        whole: Layers whose own output, or input, is read: those convolutions and norms stay apart.

    Returns:
        The copy, in eval mode. A folded norm's place is held by an identity.
    """
    light = clean_copy(module).eval()
    pairs = [(c, n) for c, n in _pairs(light) if c not in whole and n not in whole]
    for path, beside in pairs:
        convolution, norm = light.get_submodule(path), light.get_submodule(beside)
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _put(light, path, fuse_conv_bn_eval(convolution, norm))
        _put(light, beside, nn.Identity())
    if pairs and not _alike(module, light, dummy):
        light = clean_copy(module).eval()
    for part in light.modules():
        if type(part) in (nn.Conv2d, nn.Linear) and not part._forward_pre_hooks:  # such hooks make weights
            part.to(torch.bfloat16)
    return light.requires_grad_(False)


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Convolutions and the batch norms that alone take what they give, by name."""
    try:
        calls = [node for node in fx.Tracer().trace(module).nodes if node.op == "call_module"]
    except Exception:  # tracing runs anyone's code on stand-ins, and may end in any way
        return
    paths = [str(node.target) for node in calls]
    for node, path in zip(calls, paths, strict=True):
        norm, before = module.get_submodule(path), node.args[0] if node.args else None
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or not isinstance(before, fx.Node):
            continue
        source = str(before.target)
        if before.op == "call_module" and len(before.users) == 1 and paths.count(source) == paths.count(path) == 1:
            convolution = module.get_submodule(source)
            if type(convolution) is nn.Conv2d and not convolution._forward_pre_hooks:
                yield source, path


def _put(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)


def _alike(module: nn.Module, light: nn.Module, dummy: Tensor) -> bool:
    """Whether both say the same of some noise, up to rounding."""
    chance = torch.Generator().manual_seed(0)
    noise = torch.randn(dummy.shape, generator=chance).to(dummy)
    with still(module):
        one, other = answer(module(noise)), answer(light(noise))
    assert one is not None
    assert other is not None
    return bool((one - other).abs().max() <= _TOLERANCE * one.abs().max())
