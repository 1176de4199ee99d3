"""How much memory a run needs at its peak."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def start_counting(device: torch.device) -> None:
    """Forget earlier peaks of a GPU; a process's own cannot be forgotten."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Bytes, at most at once: of tensors on a GPU since `start_counting`; elsewhere of the process since it began.

    None where the system does not tell.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def told(peak: int | None) -> str:
    """Bytes as a person says them: 812 MiB, 3.4 GiB."""
    if peak is None:
        return "unknown"
    return f"{peak / 2**20:,.0f} MiB" if peak < 2**30 else f"{peak / 2**30:,.1f} GiB"
