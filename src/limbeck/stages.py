"""Finds a network's stages, pooled feature and pre-activations from one dummy batch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.taps import first_tensor, still

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.PReLU, nn.ELU)
_NUMBERED = re.compile(r"^(?P<family>.*?)(?P<number>\d+)$")
_MOST_STAGES = 6


@dataclass(frozen=True)
class _Call:
    """One call of one module in the dummy pass."""

    path: str
    count: int
    module: nn.Module
    shape: tuple[int, ...]
    output: int  # identity of the output tensor
    leaf: bool

    @property
    def address(self) -> str:
        return self.path if self.count == 1 else f"{self.path}#{self.count}"

    @property
    def spatial(self) -> bool:
        """A map (1, C, H, W) or tokens (1, T, C) with more than one position."""
        return ((len(self.shape) == 4 and self.shape[2] * self.shape[3] > 1)
                or (len(self.shape) == 3 and self.shape[1] > 1))


def discover(module: nn.Module, dummy: Tensor) -> dict[str, str]:
    """Canonical taps of any network: what it declares, and what one dummy batch shows beyond that.

    Stages come, in this order of trust, from the network's own `taps`, from timm's `feature_info`, from numbered
    siblings (`layer1`...`layer4`, `stages.0`...; evenly spaced ones where there are many, as in transformers), and from
    the last module at each resolution. `stageN.pre` is the input of the stage's last activation where it ends in one,
    and the stage itself where not. `pooled` is the input of the last linear layer.

    Args:
        module: Any network.
        dummy: Input, (1, C, H, W), on the module's device.

    Returns:
        Tap -> address.
    """
    declared: dict[str, str] = dict(getattr(module, "taps", None) or {})
    calls = _record(module, dummy)
    if "stage1" not in declared:
        stages = _from_feature_info(module) or _from_siblings(calls) or _last_at_each_resolution(calls)
        declared = {**_named(stages, calls), **declared}
    for tap in [t for t in declared if re.fullmatch(r"stage\d+", t)]:
        declared.setdefault(f"{tap}.pre", _before_activation(declared[tap], calls))
    heads = [c for c in calls if isinstance(c.module, nn.Linear) and len(c.shape) == 2]
    if heads:
        declared.setdefault("pooled", f"{heads[-1].path}:in")
    return declared


def blocks(module: nn.Module, stages: Sequence[str]) -> list[str]:
    """Addresses of the blocks that make up a network's stages, shallow first; a stage without blocks stands for itself.

    Blocks are numbered modules of a class of their own, in one container inside the stage. Stages that are some of a
    row of numbered siblings alike (every third block of a transformer) stand for the whole row, up to the last of them.

    Args:
        module: Any network.
        stages: Addresses of its stages, shallow first.
    """
    modules = dict(module.named_modules())
    inner = [_inside(modules, path) or [path] for path in _whole_row(modules, stages)]
    return [block for paths in inner for block in paths]


def _whole_row(modules: Mapping[str, nn.Module], stages: Sequence[str]) -> Sequence[str]:
    """The stages, and the siblings of their class between and before them."""
    (family, _), (_, last), kind = _numbered(stages[0]), _numbered(stages[-1]), type(modules.get(stages[0]))
    if not _compound(modules, stages[0]) or any(
            _numbered(path)[0] != family or type(modules.get(path)) is not kind for path in stages):
        return stages
    row = sorted((_numbered(path)[1], path) for path, part in modules.items()
                 if type(part) is kind and _numbered(path)[0] == family)
    return [path for number, path in row if number <= last]


def _numbered(path: str) -> tuple[str, int]:
    """`blocks.`, 11 of `blocks.11`; a path without a number is a family of its own."""
    found = _NUMBERED.match(path)
    return (found["family"], int(found["number"])) if found else (path, 0)


def _inside(modules: Mapping[str, nn.Module], stage: str) -> list[str]:
    """The numbered blocks in the shallowest container of a stage that holds nothing else."""
    containers = [stage] if stage in modules else []
    for path in containers:
        children = [f"{path}.{name}" for name, _ in modules[path].named_children()]
        if children and all(child.rpartition(".")[2].isdigit() and _own_class(modules, child) for child in children):
            return children
        containers += [child for child in children if isinstance(modules[child], nn.Sequential | nn.ModuleList)]
    return []


def _compound(modules: Mapping[str, nn.Module], path: str) -> bool:
    return path in modules and next(modules[path].children(), None) is not None


def _own_class(modules: Mapping[str, nn.Module], path: str) -> bool:
    return _compound(modules, path) and not isinstance(modules[path], nn.Sequential | nn.ModuleList)


def _record(module: nn.Module, dummy: Tensor) -> list[_Call]:
    """Every call that returned a tensor, in the order in which calls ended."""
    calls: list[_Call] = []
    kept: list[Tensor] = []  # alive until the end, so that identities are not reused
    counts: dict[str, int] = {}

    def hook(path: str) -> Any:
        def after(m: nn.Module, args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                kept.append(tensor)
                counts[path] = counts.get(path, 0) + 1
                leaf = next(m.children(), None) is None
                calls.append(_Call(path, counts[path], m, tuple(tensor.shape), id(tensor), leaf))
        return after

    handles = [m.register_forward_hook(hook(path)) for path, m in module.named_modules() if path]
    try:
        with still(module):
            module(dummy)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _from_feature_info(module: nn.Module) -> list[str]:
    info = getattr(module, "feature_info", None)
    entries: Sequence[Any] = getattr(info, "info", info) or []
    known = dict(module.named_modules())
    paths = [e["module"] for e in entries if isinstance(e, dict) and e.get("module") in known]
    return _spread(paths, 4) if len(paths) > _MOST_STAGES else paths


def _from_siblings(calls: list[_Call]) -> list[str]:
    """The numbered siblings nearest the root whose members all return maps or tokens and hold most weights."""
    families: dict[str, list[str]] = {}
    for call in calls:
        found = _NUMBERED.match(call.path)
        if found and call.spatial and not call.leaf and call.path not in families.setdefault(found["family"], []):
            families[found["family"]].append(call.path)
    shapes = {call.path: call.shape for call in calls}
    weights = {call.path: sum(p.numel() for p in call.module.parameters()) for call in calls}
    total = sum(weights[call.path] for call in calls if call.leaf and call.count == 1 and len(call.shape) > 2)
    for _, paths in sorted(families.items(), key=lambda item: item[0].count(".")):
        if 2 * sum(weights[p] for p in paths) < total:
            continue
        tokens = all(len(shapes[p]) == 3 for p in paths)
        if 2 <= len(paths) <= _MOST_STAGES and (tokens or len({shapes[p] for p in paths}) == len(paths)):
            return paths
        if len(paths) > _MOST_STAGES:
            return _spread(paths, 4) if tokens else _last_at_each_resolution([c for c in calls if c.path in paths])
    return []


def _last_at_each_resolution(calls: list[_Call]) -> list[str]:
    last: dict[tuple[int, ...], str] = {}
    for call in calls:
        if call.spatial and len(call.shape) == 4:
            last.pop(call.shape[2:], None)
            last[call.shape[2:]] = call.address
    return list(last.values())[-_MOST_STAGES:]


def _spread(paths: list[str], count: int) -> list[str]:
    """So many of them, evenly spaced, the last included."""
    return [paths[round((k + 1) * len(paths) / count) - 1] for k in range(count)]


def _named(stages: list[str], calls: list[_Call]) -> dict[str, str]:
    """`stem` where more than four were found, then `stage1`, `stage2`..."""
    stem = stages[:-4] if len(stages) > 4 else []
    taps = {f"stage{i}": path for i, path in enumerate(stages[len(stem):], start=1)}
    return {"stem": stem[-1], **taps} if stem else taps


def _before_activation(stage: str, calls: list[_Call]) -> str:
    """The input of the activation that made the stage's output, or the stage itself where none did."""
    ends = [c for c in calls if c.address == stage]
    if not ends:
        return stage
    makers = [c for c in calls if c.output == ends[-1].output and c.leaf and isinstance(c.module, _ACTIVATIONS)]
    if not makers:
        return stage
    maker = makers[0]
    return f"{maker.path}:in" + (f"#{maker.count}" if maker.count > 1 else "")
