"""Where the time of a step goes, part by part: every member's forward pass, terms, backward, optimiser, data.

The first steps warm up. Those after them are timed, on a GPU with a wait around every part, so that the parts are told
apart. The last few run as they always do and are traced by PyTorch's profiler. Then the run goes on unwatched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from limbeck.files import write_whole

if TYPE_CHECKING:
    from limbeck.method import Method
    from limbeck.progress import Display

_Item = TypeVar("_Item")

WARM_UP, TIMED, TRACED = 3, 10, 2  # steps
_WHOLE = ("backward", "beside the step")  # parts to which all counts that runs inside them


class Profile:
    """Watches nothing, at no cost: what a run has where no profile is asked for."""

    def watch(self, method: Method) -> None:
        """Watch the members and terms of what is trained from now on."""

    def part(self, name: str) -> AbstractContextManager[Any]:
        """Time spent inside counts as this part's."""
        return nullcontext()

    def batches(self, batches: Iterable[_Item]) -> Iterable[_Item]:
        """The same batches; waiting for them counts as `data`."""
        return batches

    def step(self) -> None:
        """A step is done."""

    def close(self) -> None:
        """Write down what was found, at the latest when training ends."""


class Watched(Profile):
    """A profile of a few steps, written into a folder.

    Args:
        folder: Takes `profile.json`, `profile.png` and `trace.json`.
        display: Shows the table.
        device: Where is computed.
    """

    def __init__(self, folder: Path, display: Display, device: torch.device):
        self.folder, self.display, self.device = folder, display, device
        self._steps, self._open, self._began = 0, True, 0.0
        self._seconds: dict[str, float] = {}
        self._stack: list[tuple[str, float, float]] = []  # part, when it began, what inside it was others' time
        self._removals: list[Callable[[], None]] = []
        self._trace: torch.profiler.profile | None = None

    def watch(self, method: Method) -> None:
        for remove in self._removals:
            remove()
        terms = len(method.terms)
        named: list[tuple[str, nn.Module]] = [(f"{name} forward", m) for name, m in method.members.items()]
        named += [(f"{name} forward", m) for name, m in method.frozen.items()]
        named += [(f"term {name}" if terms <= 12 else f"{terms} terms", t) for name, t in method.terms.items()]
        self._removals = [remove for name, module in named for remove in self._hooks(name, module)] * self._open

    def _hooks(self, name: str, module: nn.Module) -> list[Callable[[], None]]:
        open_parts: list[AbstractContextManager[Any]] = []

        def enter(module: nn.Module, inputs: Any) -> None:
            open_parts.append(self.part(name))
            open_parts[-1].__enter__()

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            open_parts.pop().__exit__(None, None, None)

        return [module.register_forward_pre_hook(enter).remove, module.register_forward_hook(leave).remove]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if not self._open or (self._stack and self._stack[-1][0] in _WHOLE):
            yield
            return
        self._stack.append((name, self._now(), 0.0))
        with torch.profiler.record_function(name) if self._trace else nullcontext():
            yield
        _, began, others = self._stack.pop()
        whole = self._now() - began
        if WARM_UP <= self._steps < WARM_UP + TIMED:
            self._seconds[name] = self._seconds.get(name, 0.0) + whole - others
        if self._stack:
            outer, started, inside = self._stack[-1]
            self._stack[-1] = outer, started, inside + whole

    def _now(self) -> float:
        if self.device.type == "cuda" and self._trace is None:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def batches(self, batches: Iterable[_Item]) -> Iterable[_Item]:
        rest = iter(batches)
        while True:
            with self.part("data"):
                batch = next(rest, None)
            if batch is None:
                return
            yield batch

    def step(self) -> None:
        self._steps += 1
        if self._steps == WARM_UP:
            self._began = self._now()
        elif self._steps == WARM_UP + TIMED:
            self._seconds["rest"] = self._now() - self._began - sum(self._seconds.values())
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or else it reports its own stages to the terminal
            self._trace = torch.profiler.profile()
            self._trace.start()
        elif self._steps == WARM_UP + TIMED + TRACED:
            self.close()

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for remove in self._removals:
            remove()
        if self._trace is None:
            self.display.say(f"no profile: it takes {WARM_UP + TIMED} steps at least, and there were {self._steps}.")
            return
        self._trace.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trace.export_chrome_trace(str(self.folder / "trace.json"))
        parts = {name: seconds / TIMED for name, seconds in
                 sorted(self._seconds.items(), key=lambda part: -part[1])}
        record = {"steps": TIMED, "device": str(self.device), "seconds_per_step": parts}
        write_whole(self.folder / "profile.json", json.dumps(record, indent=2) + "\n")
        draw(parts, self.folder / "profile.png")
        for line in table(parts):
            self.display.say(line)
        self.display.say(f"a picture and a trace (for chrome://tracing or Perfetto) are in {self.folder}")


def table(parts: dict[str, float]) -> list[str]:
    """Seconds of each part as lines of a table, with their shares."""
    whole, width = sum(parts.values()), max(map(len, [*parts, "a whole step"]))
    rows = [*parts.items(), ("a whole step", whole)]
    return [f"{name:<{width}}  {1000 * seconds:>9.2f} ms  {100 * seconds / whole:>5.1f} %" for name, seconds in rows]


def draw(parts: dict[str, float], file: Path) -> None:
    """A bar for each part, longest first."""
    from matplotlib.figure import Figure

    whole = sum(parts.values())
    figure = Figure(figsize=(7, 0.9 + 0.32 * len(parts)), layout="constrained")
    axes = figure.subplots()
    names, values = list(parts), [1000 * seconds for seconds in parts.values()]
    bars = axes.barh(names, values, color="#0067a3", height=0.65)
    axes.bar_label(bars, [f"{100 * seconds / whole:.1f} %" for seconds in parts.values()], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"milliseconds of a step, which takes {1000 * whole:.1f}")
    figure.savefig(file, dpi=150)
