"""What the processes of a run exchange; on one process nothing happens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def several() -> bool:
    """Whether this run has more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world() -> int:
    """How many processes this run has."""
    return dist.get_world_size() if several() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if several() else 0


def wait() -> None:
    """Until every rank is here."""
    if several():
        dist.barrier()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The tensor's sum over the ranks."""
    if several():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Each tensor's mean over the ranks, all in one exchange; None stays None (every rank must agree on which are)."""
    present = [t for t in tensors if t is not None]
    if not several() or not present:
        return list(tensors)
    flat = torch.cat([t.reshape(-1) for t in present])
    dist.all_reduce(flat)
    parts = iter((flat / dist.get_world_size()).split([t.numel() for t in present]))
    return [None if t is None else next(parts).view_as(t) for t in tensors]


def gathered(tensor: Tensor) -> Tensor:
    """Every rank's tensor, one after the other along the first dimension, in which they may differ."""
    if not several():
        return tensor
    lengths = [torch.zeros((), dtype=torch.int64, device=tensor.device) for _ in range(world())]
    dist.all_gather(lengths, torch.tensor(len(tensor), device=tensor.device))
    most = max(map(int, lengths))
    padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:int(length)] for part, length in zip(parts, lengths, strict=True)])


def average_running_statistics(module: nn.Module) -> None:
    """Give every rank the mean of all ranks' batch-norm statistics, so that all of them score the same network."""
    if not several():
        return
    norms = [m for m in module.modules()
             if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    for buffer, mean in zip(buffers, mean_over_ranks(buffers), strict=True):
        if buffer is not None and mean is not None:
            buffer.copy_(mean)
