"""Optimisers from settings, and learning rates as functions of the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from limbeck.config import OptimizerSettings, ScheduleSettings, validated
from limbeck.errors import Mistake, nearest
from limbeck.method import Method, Stage
from limbeck.optimizer_parts import Optimizers
from limbeck.seen import Clock


def build_optimizer(method: Method, settings: OptimizerSettings, own: Mapping[str, Mapping[str, Any]], *,
                    stages: Sequence[Stage] = (), fused: bool = False) -> torch.optim.Optimizer | Optimizers:
    """One optimiser of each kind that is asked for, in which every owner is a named group with its own rate and decay.

    Args:
        method: Whose members are stepped.
        settings: For every owner.
        own: Owner, or turn with an optimiser of its own -> what it has otherwise, its `schedule` too.
        stages: All that the run trains, one after the other: who learns in another of them alone may have settings too.
        fused: Step all parameters of a group in one kernel.

    Raises:
        Mistake: If a name is no owner, or a setting does not fit.
    """
    owners = method.owners()
    learners = {turn or name for one in (method, *(stage.method for stage in stages)) for turn, name in _stepped(one)}
    for name in own:
        if name not in learners:
            raise Mistake(f"optimizers.{name} is for no member that learns; {nearest(name, learners)}")
    groups: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
    for turn, name in _stepped(method):
        chosen = own_settings(settings, own.get(turn or name, {}))
        schedule = chosen.schedule and chosen.schedule.model_dump()
        group = {"params": owners[name], "owner": name, "turn": turn, "base_lr": chosen.lr, "schedule": schedule}
        groups.setdefault((turn, chosen.name), []).append({**group, **_options(chosen)})
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    parts = [kinds[kind](several, fused=fused) for (_, kind), several in groups.items()]
    for part in parts:
        if fused and isinstance(part, torch.optim.SGD):
            _give_velocities(part)
    return parts[0] if len(parts) == 1 else Optimizers(parts)


def _give_velocities(optimizer: torch.optim.SGD) -> None:
    """Start every velocity at 0: the fused kernel takes all or none, and a clipped term's first gradient comes late.

    The first step makes of it what it makes of none: momentum * 0 + gradient.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _stepped(method: Method) -> list[tuple[str | None, str]]:
    """(optimiser of a turn's own, owner) of all that turns step, each pair once."""
    return list(dict.fromkeys((turn.optimizer, name) for turn in method.turns for name in method.owners()
                              if turn.owners is None or name in turn.owners))


def own_settings(settings: OptimizerSettings, own: Mapping[str, Any]) -> OptimizerSettings:
    """The run's settings with one member's own on top.

    Raises:
        Mistake: If one of them is unknown or does not fit.
    """
    return validated(OptimizerSettings, {**settings.model_dump(), **own})


def _options(settings: OptimizerSettings) -> dict[str, object]:
    shared = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return {**shared, "momentum": settings.momentum, "nesterov": settings.nesterov}
    return {**shared, "betas": settings.betas}


def rate(settings: ScheduleSettings, clock: Clock) -> float:
    """What the base learning rate is multiplied with at this step.

    `steps` and `constant` change at whole epochs where drops fall on them; `cosine` and `poly` with every step, from 1
    to 0: over what follows the warm-up.

    Args:
        settings: The schedule.
        clock: The step.
    """
    done = clock.step / clock.steps
    if done < settings.warm_up:
        return min(1.0, (clock.step + 1) / (settings.warm_up * clock.steps))
    falling = (done - settings.warm_up) / (1 - settings.warm_up)
    if settings.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * falling))
    if settings.kind == "poly":
        return float((1 - falling) ** settings.power)
    if settings.kind == "steps":
        return settings.factor ** sum(done >= drop - 1e-9 for drop in settings.drops)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer | Optimizers, settings: ScheduleSettings, clock: Clock) -> float:
    """Put every group at its rate of this step, by its own schedule if it has one; returns the others' factor."""
    factor = rate(settings, clock)
    for group in optimizer.param_groups:
        own = group["schedule"]
        group["lr"] = group["base_lr"] * (factor if own is None else rate(ScheduleSettings(**own), clock))
    return factor
