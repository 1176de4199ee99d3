"""What a person sees while a run goes on: one line with the time left, and a line an epoch that stays."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Display:
    """Progress of a stage on standard error; without a terminal only the lines that stay.

    Args:
        quiet: Show nothing; for ranks beside the first, and for tests.
    """

    def __init__(self, *, quiet: bool = False):
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
                             TimeRemainingColumn(), TextColumn("left {task.fields[rate]}"), console=self.console,
                             transient=True, disable=quiet or not self.console.is_terminal)
        self._task: TaskID | None = None
        self._began, self._first = time.monotonic(), 0

    def start(self, name: str, step: int, steps: int) -> None:
        """Begin a stage at some step."""
        self._bar.start()
        self._task = self._bar.add_task(name, total=steps, completed=step, rate="")
        self._began, self._first = time.monotonic(), step

    def advance(self, step: int, images: int) -> None:
        """So many steps are done; images is the size of a step."""
        if self._task is not None:
            pace = (step - self._first) * images / max(1e-9, time.monotonic() - self._began)
            self._bar.update(self._task, completed=step, rate=f"{pace:,.0f} images/s")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, soft_wrap=True, markup=False)

    def epoch(self, name: str, done: float, epochs: float, step: int, steps: int, values: Mapping[str, float]) -> None:
        """The line of a finished epoch, with the time left at the pace so far."""
        elapsed = time.monotonic() - self._began
        left = elapsed / max(1, step - self._first) * (steps - step)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items() if not math.isnan(value))
        self.say(f"{name} epoch {done:g}/{epochs:g}  {shown}  left {duration(left)}")

    def stop(self) -> None:
        """Take the moving line away."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._bar.stop()


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
