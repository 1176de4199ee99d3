"""Compiled networks and connectors: few launches for a GPU that small networks would leave waiting.

What members and terms consist of is compiled, module by module, never `Method.forward`: so a term may come or go with
the epoch and nothing is compiled again. Compiled modules keep their hooks, their keys and their place. Scores, and
passes at other parameters, run as they are written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from limbeck import ranks
from limbeck.config import TrainingSettings
from limbeck.members import Frozen, Network
from limbeck.method import Method


@dataclass(frozen=True)
class Compiling:
    """Whether and how a run compiles.

    Attributes:
        on: Whether it does.
        backend: By whom; None is PyTorch's own.
        graphs: Whether whole passes are replayed as CUDA graphs. What they compute lies where the next step's will: so
            only where no one needs it longer, that is, in steps of one turn and one piece on one GPU with nothing
            beside.
        lenient: Whether what cannot be compiled runs as it is, with a warning; or else that is an error.
    """

    on: bool
    backend: str | None
    graphs: bool
    lenient: bool

    @classmethod
    def chosen(cls, settings: TrainingSettings, device: torch.device) -> Compiling:
        """What settings and device come to: by itself, on a GPU."""
        on = settings.compile is True or (
            settings.compile == "auto" and device.type == "cuda" and not settings.checkpoint_activations)
        graphs = (on and settings.cuda_graphs and device.type == "cuda" and settings.compile_backend is None
                  and settings.accumulate == 1 and not ranks.several())
        return cls(on, settings.compile_backend, graphs, settings.compile == "auto")

    def prepare(self, method: Method, *, alone: bool) -> None:
        """Compile what the method consists of when it first runs.

        Args:
            method: On its device.
            alone: Whether nothing goes beside the steps.
        """
        if not self.on:
            return
        import torch._dynamo

        torch._dynamo.config.suppress_errors = self.lenient
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # dynamo itself looks
        graphs = self.graphs and alone and len(method.turns) == 1
        for module in modules(method):
            if module._compiled_call_impl is not None:  # by an earlier stage
                continue
            if self.backend is not None:
                module.compile(backend=self.backend, dynamic=False)
            else:
                module.compile(mode="reduce-overhead" if graphs else "default", dynamic=False)

    def step(self) -> None:
        """A step begins: what graphs computed in the one before may go."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def eager(self) -> AbstractContextManager[object]:
        """Within it everything runs as it is written."""
        return torch.compiler.set_stance("force_eager") if self.on else nullcontext()

    def record(self) -> dict[str, bool]:
        """The choices, for the run's record."""
        return {"compiled": self.on, "cuda_graphs": self.graphs}

    def told(self) -> list[str]:
        """In a word or two, for a person."""
        return [f"compiled{' into CUDA graphs' * self.graphs}"] if self.on else []


def modules(method: Method) -> Iterator[nn.Module]:
    """What members and terms call, each once: networks, connectors, fusions; lists of modules by what is in them."""
    looking = [*method.members.values(), *method.terms.values(), *method.frozen.values()]
    waiting = [child for part in looking for child in (part.network if isinstance(part, Frozen) else part).children()]
    done: set[int] = set()
    while waiting:
        module = waiting.pop(0)
        if id(module) in done:
            continue
        done.add(id(module))
        if isinstance(module, nn.ModuleList | nn.ModuleDict | Network):
            waiting += module.children()
        elif type(module).forward is not nn.Module.forward:
            yield module
