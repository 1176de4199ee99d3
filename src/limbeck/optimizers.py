"""Optimisers from settings, and learning rates as functions of the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from limbeck.config import OptimizerSettings, ScheduleSettings
from limbeck.errors import Mistake, nearest
from limbeck.method import Method
from limbeck.seen import Clock


def build_optimizer(method: Method, settings: OptimizerSettings,
                    own: Mapping[str, OptimizerSettings]) -> torch.optim.Optimizer:
    """One optimiser over all owners, each a named group with its own rate and decay.

    Args:
        method: Whose members are stepped.
        settings: For every owner that has none of its own.
        own: Owner -> settings; the kind of optimiser is the same for all.

    Raises:
        Mistake: If a name is no owner, or the kinds differ.
    """
    owners = method.owners()
    for name, one in own.items():
        if name not in owners:
            raise Mistake(f"optimizers.{name} is for no member that learns; {nearest(name, owners)}")
        if one.name != settings.name:
            raise Mistake(f"optimizers.{name}.name is {one.name} beside {settings.name}; give all members one kind.")
    groups = [{"params": parameters, "owner": name, **_options(own.get(name, settings))}
              for name, parameters in owners.items()]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    optimizer = kind(groups)
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def _options(settings: OptimizerSettings) -> dict[str, object]:
    shared = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return {**shared, "momentum": settings.momentum, "nesterov": settings.nesterov}
    return {**shared, "betas": settings.betas}


def rate(settings: ScheduleSettings, clock: Clock) -> float:
    """What the base learning rate is multiplied with at this step.

    `steps` and `constant` change at whole epochs where drops fall on them; `cosine` with every step, from 1 to 0.

    Args:
        settings: The schedule.
        clock: The step.
    """
    done = clock.step / clock.steps
    if done < settings.warm_up:
        return (clock.step + 1) / (settings.warm_up * clock.steps)
    if settings.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (done - settings.warm_up) / (1 - settings.warm_up)))
    if settings.kind == "steps":
        return settings.factor ** sum(done >= drop - 1e-9 for drop in settings.drops)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, settings: ScheduleSettings, clock: Clock) -> float:
    """Put every group at its rate of this step; returns the factor."""
    factor = rate(settings, clock)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return factor
