"""The blocks that a network's stages are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

_NUMBERED = re.compile(r"^(?P<family>.*?)(?P<number>\d+)$")


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
    (family, _), (_, last), kind = numbered(stages[0]), numbered(stages[-1]), type(modules.get(stages[0]))
    if not _compound(modules, stages[0]) or any(
            numbered(path)[0] != family or type(modules.get(path)) is not kind for path in stages):
        return stages
    row = sorted((numbered(path)[1], path) for path, part in modules.items()
                 if type(part) is kind and numbered(path)[0] == family)
    return [path for number, path in row if number <= last]


def numbered(path: str) -> tuple[str, int]:
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
