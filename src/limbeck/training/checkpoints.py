"""Everything that a stopped run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from limbeck import ranks
from limbeck.errors import Mistake
from limbeck.files import write_whole
from limbeck.seen import random_state, set_random_state


def own_state(module: nn.Module, device: torch.device) -> dict[str, Any]:
    """What is this rank's own: buffers (running statistics, memories), and the states of its random generators."""
    buffers = {name: buffer.detach().cpu() for name, buffer in module.named_buffers()}
    return {"buffers": buffers, "random": torch.get_rng_state(), "device_random": random_state(device).cpu()}


def restore_own(state: Mapping[str, Any], module: nn.Module, device: torch.device) -> None:
    """Put this rank's buffers and random generators back."""
    for name, buffer in module.named_buffers():
        buffer.copy_(state["buffers"][name])
    set_random_state(state["device_random"], device)
    torch.set_rng_state(state["random"])


def save(path: Path, shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; called by every rank, written by the first.

    Args:
        path: Where.
        shared: What all ranks agree on.
        own: What is each rank's own.
    """
    everyone: list[Any] = [own]
    if ranks.several():
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, own)
    if ranks.rank() == 0:
        buffer = io.BytesIO()
        torch.save({**shared, "ranks": everyone}, buffer)
        write_whole(path, buffer.getvalue())


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint: what is shared, and this rank's own.

    Raises:
        Mistake: If the file is damaged, or was written by another number of processes.
    """
    state, everyone = _read(path)
    if len(everyone) != ranks.world():
        raise Mistake(f"{path} was written by {len(everyone)} process(es); this run has {ranks.world()}. "
                      f"Resume with as many as before.")
    return state, everyone[ranks.rank()]


def load_shared(path: Path) -> dict[str, Any]:
    """Read what is shared in a checkpoint, whatever number of processes wrote it.

    Raises:
        Mistake: If the file is damaged.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file makes an unpickler raise is anything at all
        raise _damaged(path, next(iter(str(error).splitlines()), type(error).__name__)) from None
    if not isinstance(state, dict) or not isinstance(state.get("ranks"), list):
        raise _damaged(path, "it is no checkpoint of a run")
    return state, state.pop("ranks")


def _damaged(path: Path, reason: str) -> Mistake:
    return Mistake(f"{path} is damaged ({reason}) and nothing was changed. Restore it from a copy, or delete it to "
                   f"start this run from its beginning.")
