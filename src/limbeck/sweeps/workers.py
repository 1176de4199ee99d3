"""Does the runs of a sweep, several at once where there are devices; stopped and started again, it goes on."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.status import Status

from limbeck.errors import Mistake, Stopped
from limbeck.progress import Display, duration
from limbeck.sweeps.plan import Piece, Plan
from limbeck.training.engine import Interrupts

_TOLD = ("top1", "miou", "rmse", "agreement")


@dataclass
class _Worker:
    """A process that does a piece."""

    piece: Piece
    process: subprocess.Popen
    log: Path
    began: float = field(default_factory=time.monotonic)


class Workers:
    """As many processes as are wanted, a run each, until all runs of a plan are done or have failed.

    Args:
        plan: The runs.
        count: Processes at once; None is one for each GPU, or one.
        device: Passed on to every run; None takes the best there is.
        display: What a person sees.
    """

    pause = 0.2  # seconds between two looks at the processes

    def __init__(self, plan: Plan, *, count: int | None = None, device: str | None = None,
                 display: Display | None = None):
        self.plan, self.device, self.display = plan, device, display or Display()
        self.gpus = gpus() if device in (None, "cuda") else []
        self.count = count or max(1, len(self.gpus))
        self.done = {name for name, piece in plan.pieces.items() if plan.run(piece).finished}
        self.waiting = [piece for name, piece in plan.pieces.items() if name not in self.done]
        self.working: dict[int, _Worker] = {}  # by place, which decides on the GPU
        self.failed: dict[str, str] = {}
        self._began, self._before = time.monotonic(), self._work()

    def run(self) -> None:
        """Do everything that is not done yet.

        Raises:
            Stopped: On SIGTERM or SIGINT, after every run has written its checkpoint.
            Mistake: If another sweep is at work in the folder; at the end, if a run failed.
        """
        if self.done:
            self.display.say(f"{len(self.done)} of {len(self.plan.pieces)} runs are finished already")
        with _alone(self.plan.folder) as lock, Interrupts() as interrupts, self._status() as status:
            try:
                while (self.waiting or self.working) and not interrupts.asked:
                    self._start(lock)
                    time.sleep(self.pause)
                    self._collect()
                    if isinstance(status, Status):
                        status.update(self._line())
            finally:
                self._stop()
        every = len(self.plan.pieces)
        if interrupts.asked:
            raise Stopped(f"stopped, everything saved; {len(self.done)} of {every} runs are finished. The same command "
                          f"goes on.")
        if self.failed:
            told = "\n  ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise Mistake(f"{len(self.failed)} of {every} runs failed; all others are finished. The same command tries "
                          f"them again.\n  {told}")

    # --- the processes

    def _start(self, lock: int) -> None:
        for place in range(self.count):
            if place not in self.working and (piece := self._next()) is not None:
                self.waiting.remove(piece)
                self.working[place] = self._worker(piece, place, lock)

    def _next(self) -> Piece | None:
        """The first run that waits for none; runs that wait for one that failed have failed too."""
        for piece in [p for p in self.waiting if p.after in self.failed]:
            self.waiting.remove(piece)
            self._fail(piece, f"{piece.after}, which it learns from, failed")
        return next((piece for piece in self.waiting if piece.after is None or piece.after in self.done), None)

    def _worker(self, piece: Piece, place: int, lock: int) -> _Worker:
        log = self.plan.folder / "logs" / f"{piece.name.replace('/', '-')}.log"
        self.plan.run(piece).start(piece.job)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:  # a session of its own: Ctrl-C reaches the sweep alone, which then stops its runs
            process = subprocess.Popen(self.words(piece), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                       pass_fds=[lock], env=self._environment(place), start_new_session=True)
        return _Worker(piece, process, log)

    def words(self, piece: Piece) -> list[str]:
        """The command that does a piece."""
        run = self.plan.run(piece)
        return [sys.executable, "-m", "limbeck", piece.verb, "--config", str(run.config), "--run", str(run.folder),
                "--quiet", *(["--device", self.device] if self.device else [])]

    def _environment(self, place: int) -> dict[str, str]:
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        if self.count > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.count)))
        return environment

    def _collect(self) -> None:
        for place, worker in list(self.working.items()):
            if worker.process.poll() is None:
                continue
            del self.working[place]
            if worker.process.returncode == 0 and self.plan.run(worker.piece).finished:
                self._finish(worker)
            else:
                self._fail(worker.piece, f"{_last_word(worker)} (all that it said: {worker.log})")

    def _stop(self) -> None:
        """Ask every process to write its checkpoint, and wait for it."""
        for worker in self.working.values():
            worker.process.terminate()
        for worker in self.working.values():
            worker.process.wait()

    # --- what a person sees

    def _finish(self, worker: _Worker) -> None:
        self.done.add(worker.piece.name)
        last: dict[str, Any] = self.plan.run(worker.piece).read_json("result.json").get("test", {}).get("last", {})
        scores = "  ".join(f"test {key} {value:.4g}" for key, value in last.items() if key in _TOLD)
        took = duration(time.monotonic() - worker.began)
        self.display.say(f"{worker.piece.name} finished in {took}  {scores}  {self._left()}")

    def _fail(self, piece: Piece, why: str) -> None:
        self.failed[piece.name] = why
        self.display.say(f"{piece.name} failed: {why}")

    def _status(self) -> AbstractContextManager[Any]:
        """A moving line on a terminal."""
        console = self.display.console
        return console.status(self._line()) if console.is_terminal and not console.quiet else nullcontext()

    def _line(self) -> str:
        return f"{', '.join(worker.piece.name for worker in self.working.values())}  {self._left()}"

    def _left(self) -> str:
        """How many are done, and how long the others take at the pace so far."""
        told = f"{len(self.done)} of {len(self.plan.pieces)} done"
        work, elapsed = self._work(), time.monotonic() - self._began
        rest = sum(_length(piece) for name, piece in self.plan.pieces.items() if name not in self.failed) - work
        return told + (f"  left {duration(elapsed * rest / (work - self._before))}" if work > self._before else "")

    def _work(self) -> float:
        """Epochs that are done, of all runs together."""
        begun = (self.plan.run(worker.piece).records() for worker in self.working.values())
        finished = sum(_length(self.plan.pieces[name]) for name in self.done)
        return finished + sum(float(records[-1]["epoch"]) for records in begun if records)


def gpus() -> list[str]:
    """The GPUs that workers share out, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _length(piece: Piece) -> float:
    return piece.job.training.epochs


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Keep other sweeps out of a folder: a lock that runs hold too, so that one left behind keeps them out as well."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Mistake(f"another sweep, or a run that one left behind, is at work in {folder}. Wait for it, or stop "
                          f"it; then give the same command again.") from None
        yield file.fileno()


def _last_word(worker: _Worker) -> str:
    """Why a process ended, as it said itself."""
    lines = [line for line in worker.log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1].strip() if lines else f"it ended with {worker.process.returncode}"
