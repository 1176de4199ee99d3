"""Finds a network's stages, pooled feature, tokens and pre-activations from one dummy batch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.taps import Address
from limbeck.taps.blocks import numbered
from limbeck.taps.calls import Call, record
from limbeck.taps.layouts import Grid, Layout, layouts

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.PReLU, nn.ELU)
_MOST_STAGES = 6


@dataclass(frozen=True)
class Found:
    """What one dummy batch shows of a network.

    Attributes:
        taps: Canonical tap -> address.
        layouts: Address -> how that tensor holds places and channels, of every tensor with places.
    """

    taps: dict[str, str]
    layouts: dict[str, Layout]


def discover(module: nn.Module, dummy: Tensor) -> dict[str, str]:
    """Canonical taps of any network; see `explore`."""
    return explore(module, dummy).taps


def explore(module: nn.Module, dummy: Tensor) -> Found:
    """Canonical taps of any network: what it declares, and what one dummy batch shows beyond that.

    Stages come, in this order of trust, from the network's own `taps`, from timm's `feature_info` where the maps are as
    small as it says, from numbered siblings (`layer1`...`layer4`, `stages.0`...; evenly spaced ones where there are
    many, as in transformers), and from the last module at each resolution that a layer with weights works at. They are
    read as maps, whatever their layout. `stageN.pre` is the input of the stage's last activation where it ends in one,
    and the stage itself where not. `pooled` is the input of the last linear layer; where two in a row give logits, as
    with a distillation token, of the first of them, and they are `logits.class` and `logits.distillation`. Of a network
    whose last stage is tokens, `tokens` are the patches' at their last layer, and `cls` is the class token there.

    Args:
        module: Any network.
        dummy: Input, (1, C, H, W), on the module's device.
    """
    declared: dict[str, str] = dict(getattr(module, "taps", None) or {})
    calls, image = record(module, dummy), (dummy.shape[-2], dummy.shape[-1])
    places = layouts(calls, image)
    if "stage1" not in declared:
        stages = (_from_feature_info(module, places, image) or _from_siblings(calls, places)
                  or _last_at_each_resolution(calls, places, image=id(dummy)))
        declared = {**_named(stages), **declared}
    for tap in [t for t in declared if re.fullmatch(r"stage\d+", t)]:
        declared.setdefault(f"{tap}.pre", _before_activation(declared[tap], calls))
    declared = {tap: _as_map(address, places) if tap.startswith("st") else address for tap, address in declared.items()}
    return Found({**_heads(calls), **_tokens(declared, calls, places), **declared}, places)


def _as_map(address: str, places: Mapping[str, Layout]) -> str:
    """The address read as a map, where its tensor is none."""
    layout = places.get(address)
    return address if layout is None or layout.kind == "map" else f"{address}:map"


def _heads(calls: Sequence[Call]) -> dict[str, str]:
    """`pooled`, and the logits of two heads that stand side by side."""
    leaves = [call for call in calls if call.leaf]
    linear = [i for i, call in enumerate(leaves) if isinstance(call.module, nn.Linear) and len(call.shape) == 2]
    if not linear:
        return {}
    last, before = leaves[linear[-1]], leaves[linear[-1] - 1]
    if linear[-1] - 1 not in linear or before.shape != last.shape or before.output == last.given:
        return {"pooled": last.given_address}
    return {"pooled": before.given_address, "logits.class": before.address, "logits.distillation": last.address}


def _tokens(taps: Mapping[str, str], calls: Sequence[Call], places: Mapping[str, Layout]) -> dict[str, str]:
    """`tokens` and `cls` of a network whose last stage is tokens, where they are last seen in its shape."""
    stages = sorted((tap for tap in taps if re.fullmatch(r"stage\d+", tap)), key=lambda tap: int(tap[5:]))
    layout = places.get(Address.parse(taps[stages[-1]]).tensor) if stages else None
    if layout is None or layout.kind != "tokens":
        return {}
    stage = next(call for call in calls if call.address == Address.parse(taps[stages[-1]]).tensor)
    last = [call for call in calls if call.shape == stage.shape and places.get(call.address) == layout][-1]
    address = next(call.address for call in calls if call.output == last.output)
    return {"tokens": f"{address}:tokens", **({"cls": f"{address}:cls"} if layout.before else {})}


def _from_feature_info(module: nn.Module, places: Mapping[str, Layout], image: Grid) -> list[str]:
    """The layers that timm names; none where one of them returns larger maps than it says (HRNet's are lists)."""
    info = getattr(module, "feature_info", None)
    entries: Sequence[Any] = getattr(info, "info", info) or []
    named = [e for e in entries if isinstance(e, dict) and e.get("module") in places]
    if any(places[e["module"]].grid[0] > math.ceil(image[0] / e.get("reduction", 1)) for e in named):
        return []
    paths = [e["module"] for e in named]
    return _spread(paths, 4) if len(paths) > _MOST_STAGES else paths


def _from_siblings(calls: Sequence[Call], places: Mapping[str, Layout]) -> list[str]:
    """The numbered siblings nearest the root whose members all return maps or tokens and hold most weights.

    Of small images the last of them may return a single place.
    """
    families: dict[str, list[str]] = {}
    for call in calls:
        family, _ = numbered(call.path)
        if call.path not in families.get(family, [call.path] * (family == call.path or call.leaf)) and (
                call.spatial or (call.address in places and family in families)):
            families.setdefault(family, []).append(call.path)
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
            return _spread(paths, 4) if tokens else _last_at_each_resolution(
                [c for c in calls if any(f"{c.path}.".startswith(f"{p}.") for p in paths)], places, paths)
    return []


def _last_at_each_resolution(calls: Sequence[Call], places: Mapping[str, Layout],
                             among: Sequence[str] | None = None, *, image: int = 0) -> list[str]:
    """The last of the tensors at each resolution that a layer with weights works at; what only pools has no stage.

    Without `among`, modules to choose from, a layer's input counts too where no module made it, as sums of branches;
    only the image, by its identity, does not.
    """
    last: dict[Grid, str] = {}
    made, weighed = {image, *(call.output for call in calls)}, set[Grid]()
    for call in calls:
        given = [call.given_address] if among is None and call.leaf and call.given not in made else []
        own = [call.address] if among is None or call.path in among else []
        for address in (*given, *own):
            layout = places.get(address)
            if layout is not None and layout.kind != "tokens" and (layout.grid != (1, 1) or among is not None):
                last.pop(layout.grid, None)
                last[layout.grid] = address
        if call.leaf and call.address in places and next(call.module.parameters(), None) is not None:
            weighed.add(places[call.address].grid)
    return [address for grid, address in last.items() if grid in weighed][-_MOST_STAGES:]


def _spread(paths: list[str], count: int) -> list[str]:
    """So many of them, evenly spaced, the last included."""
    return [paths[round((k + 1) * len(paths) / count) - 1] for k in range(count)]


def _named(stages: Sequence[str]) -> dict[str, str]:
    """`stem` where more than four were found, then `stage1`, `stage2`..."""
    stem = stages[:-4] if len(stages) > 4 else []
    taps = {f"stage{i}": path for i, path in enumerate(stages[len(stem):], start=1)}
    return {"stem": stem[-1], **taps} if stem else taps


def _before_activation(stage: str, calls: Sequence[Call]) -> str:
    """The input of the activation that made the stage's output, or the stage itself where none did."""
    ends = [c for c in calls if c.address == stage]
    if not ends:
        return stage
    makers = [c for c in calls if c.output == ends[-1].output and c.leaf and isinstance(c.module, _ACTIVATIONS)]
    if not makers:
        return stage
    return makers[0].given_address
