"""How a run computes: precision, layout of maps, fused kernels. Chosen by the device; each choice can be set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limbeck.config import TrainingSettings
from limbeck.members import Network
from limbeck.method import Method
from limbeck.training.compiling import Compiling
from limbeck.training.engine import autocast


@dataclass(frozen=True)
class Arithmetic:
    """What was chosen for a run.

    Attributes:
        device: Where it computes.
        autocast: The context that members run in.
        precise: Whether that is full float32.
        by_network: Whether a learning network may stay in float32 beside others in bf16, where that is faster.
        tf32: Whether convolutions outside bf16 round their factors to TF32. Products of matrices never do: outside bf16
            they are distances.
        channels_last: Whether maps have their channels innermost.
        folding: Whether finished networks run with batch norms folded into convolutions and weights rounded ahead:
            in bf16, where a compiler does not see to it.
        recomputing: Whether learning networks keep their blocks' inputs alone; see `recomputing`.
        fused: Whether each optimiser steps all its parameters in one kernel: on a GPU. On a CPU that gains nothing
            (2.4 and 1.3 ms for ResNet-8x4, SGD), and its kernel misreads gradients whose layout is not the parameter's.
    """

    device: torch.device
    autocast: Callable[[], AbstractContextManager]
    precise: bool
    by_network: bool
    tf32: bool
    channels_last: bool
    folding: bool
    recomputing: bool
    fused: bool

    @classmethod
    def chosen(cls, settings: TrainingSettings, device: torch.device) -> Arithmetic:
        """What settings and device come to."""
        context, precise = autocast(settings.precision, device)
        tf32 = (settings.tf32 and settings.precision != "float32" and device.type == "cuda"
                and torch.cuda.get_device_capability(device) >= (8, 0))
        folding = settings.fold_teachers and not precise and not Compiling.chosen(settings, device).on
        return cls(device, context, precise, settings.precision == "auto" and device.type == "cpu", tf32,
                   settings.channels_last, folding, settings.checkpoint_activations,
                   settings.fused_optimizer and device.type == "cuda")

    def prepare(self, method: Method) -> Method:
        """The method on the device, its maps laid out and its networks set to their precision."""
        torch.backends.cudnn.allow_tf32 = self.tf32
        for member in method.members.values():
            if isinstance(member, Network):
                member.precise = self.by_network and not self.precise and slow_in_bf16(member.module)
                member.recompute(self.recomputing)
                member.lighten(False)
        for teacher in method.frozen.values():
            teacher.lighten(self.folding)
        return method.to(self.device).to(memory_format=torch.channels_last if self.channels_last
                                         else torch.preserve_format)

    def record(self) -> dict[str, Any]:
        """The choices, for the run's record."""
        return {"precision": self.precision, "tf32": self.tf32, "channels_last": self.channels_last,
                "fold_teachers": self.folding, "checkpoint_activations": self.recomputing,
                "fused_optimizer": self.fused}

    @property
    def precision(self) -> str:
        """`bf16` or `float32`."""
        return "float32" if self.precise else "bf16"

    def told(self, method: Method) -> str:
        """The choices in a line, for a person; `method` as it was prepared."""
        exact = [name for name, member in method.members.items() if isinstance(member, Network) and member.precise]
        words = [self.precision + (f" ({', '.join(exact)} in float32: grouped convolutions are slower in bf16 here)"
                                   if exact else ""),
                 *["TF32 convolutions"] * self.tf32, *["channels last"] * self.channels_last,
                 *["batch norms folded in finished networks"] * (self.folding and bool(method.frozen)),
                 *["activations computed again"] * self.recomputing,
                 *["fused optimiser"] * self.fused]
        return f"on {self.device.type}: {', '.join(words)}"


def slow_in_bf16(module: nn.Module) -> bool:
    """Whether training it in bf16 costs more than in float32 on a CPU: its convolutions are grouped.

    Their backward pass is slow in bf16: steps of ShuffleNetV1, ShuffleNetV2 and MobileNetV2 take 1.03, 1.6 and 1.8
    times as long as in float32, those of ResNets, VGGs and ViTs 0.56 to 0.75 times (one core, AVX-512 BF16, batches of
    32). The forward pass alone is faster in bf16 for all of them.
    """
    return any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in module.modules())

