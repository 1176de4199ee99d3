"""The device, the processes and the precision of a run: Accelerate, and what we ask of it."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from limbeck import ranks
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.method import Method
from limbeck.seen import Clock


def start(device: str | None, *, deterministic: bool = False) -> Accelerator:
    """Find the device, and the other processes where a launcher started several.

    Args:
        device: `cpu`, `cuda`, `mps`; None takes the best there is.
        deterministic: Same results to the bit on a GPU too, at some cost in speed.

    Raises:
        Mistake: If the device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise Mistake("--device cuda needs a GPU that PyTorch sees; there is none. Leave --device out, or give cpu.")
    if deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if device == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
    # Buffers are not broadcast: it would overwrite what a rank remembers for itself.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[ddp])


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step, where it is glibc; elsewhere nothing happens.

    By default blocks of a feature map's size go back to the system and come anew, zeroed page by page, at every layer:
    a tenth of a step on a CPU (benchmarks/steps.py with and without).
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # mallopt's names for them
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option, size in ((mmap_threshold, 1 << 30), (trim_threshold, 1 << 30), (top_pad, 1 << 26)):
            library.mallopt(option, size)


def wrap(method: Method, clock: Clock, accelerator: Accelerator) -> nn.Module:
    """The method as it is called in training: itself, or wrapped to average gradients over ranks."""
    if not ranks.several():
        return method
    epochs = range(0, clock.steps, clock.steps_per_epoch)
    everything = frozenset(method.terms)
    dropping = len(method.turns) > 1 or any(
        method.process.active(Clock(first, clock.steps, clock.steps_per_epoch)) != everything for first in epochs)
    read, learning = set(method.reads()), method.owners()
    heads = {f"{name}.{tap}" for name, member in method.members.items()
             if isinstance(member, Network) and name in learning for tap in ("logits", *member.auxiliary)}
    headless = not heads <= read  # a stage that trains the layers below a hint alone
    threshold = getattr(method.process, "threshold", None) is not None
    assert accelerator.ddp_handler is not None
    accelerator.ddp_handler.find_unused_parameters = dropping or headless or threshold
    return accelerator.prepare_model(method)


def autocast(precision: str, device: torch.device) -> tuple[Callable[[], AbstractContextManager], bool]:
    """The context that members run in, and whether it is full precision.

    Args:
        precision: `bf16`, `float32`, or `auto`: bf16 where the device is fast at it.
        device: Where.
    """
    if precision == "bf16" or (precision == "auto" and fast_bf16(device)):
        return partial(torch.autocast, device.type, dtype=torch.bfloat16), False
    return nullcontext, True


def fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 in hardware: GPUs of Ampere and later, CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # no public names yet
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in asked)


class Interrupts:
    """Turns SIGTERM and the first Ctrl-C into a wish to stop, which the loop grants after the present step."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: someone else's program, someone else's signals
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
