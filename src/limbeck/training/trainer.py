"""The one loop: for every stage, for every batch, for every turn: forward, weigh, backward, step.

    for stage in stages:
        for epoch in stage:
            for batch in epoch:
                companion.before(step)
                for turn in method.turns:
                    losses = method(seen, active terms of the turn)
                    (weights * losses).sum().backward();  optimizer.step()
                method.after_step(seen);  companion.after(step);  clock ticks
            score;  record;  checkpoint

The loop knows methods, never a method. Rates, weights, order and augmentation are functions of clock and seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from limbeck import cache, ranks
from limbeck.config import OptimizerSettings, ScheduleSettings, TrainingSettings, merged
from limbeck.data import Batches
from limbeck.errors import Mistake, Stopped
from limbeck.evaluation.scores import score_group, together
from limbeck.method import Companion, Stage, Step
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.seen import Batch, Clock
from limbeck.tasks import Task, beats, worst
from limbeck.training import checkpoints, memory
from limbeck.training.arithmetic import Arithmetic
from limbeck.training.averages import Averages
from limbeck.training.compiling import Compiling
from limbeck.training.engine import Interrupts, wrap
from limbeck.training.optimizers import build_optimizer, set_rate
from limbeck.training.profiling import Profile
from limbeck.training.turns import Turns

_LOOK_EVERY = 50  # steps between two looks at the losses: a look waits for the device


class Trainer:
    """Trains one stage after the other, and leaves everything in the run's folder.

    Args:
        stages: What to train.
        task: How to score.
        batches: What to train on.
        splits: What to score, by the name of the record: `test`, and `select` if there is one.
        run: The folder.
        settings: How long and how exactly.
        optimizer: For every member without one of its own.
        optimizers: What single members have otherwise, by name.
        schedule: Of the learning rate.
        companion: What goes beside the loop, where no method brings its own.
        accelerator: The engine; see `engine.start`.
        display: What a person sees.
        profile: What watches the first steps, if anything does.
    """

    def __init__(self, stages: Sequence[Stage], task: Task, batches: Batches, splits: Mapping[str, Batches], run: Run,
                 settings: TrainingSettings, *, optimizer: OptimizerSettings, schedule: ScheduleSettings,
                 accelerator: Accelerator, optimizers: Mapping[str, Mapping[str, Any]] | None = None,
                 companion: Companion | None = None, display: Display | None = None, profile: Profile | None = None):
        self.stages, self.task, self.batches, self.splits, self.run = stages, task, batches, splits, run
        self.settings, self.optimizer_settings, self.optimizers = settings, optimizer, optimizers or {}
        self.schedule, self.accelerator, self._given, self.companion = schedule, accelerator, companion, companion
        self.display = display or Display(quiet=ranks.rank() != 0)
        self.stage, self.clock, self.best = 0, Clock(0, 1, 1), worst(task.better)
        self.arithmetic = Arithmetic.chosen(settings, accelerator.device)
        self.compiling = Compiling.chosen(settings, accelerator.device)
        self.autocast, self.precise = self.arithmetic.autocast, self.arithmetic.precise
        self.averages, self.interrupts, self.profile = Averages(), Interrupts(), profile or Profile()
        self._written, self._records = time.monotonic(), 0
        own = [stage.name for stage in stages if stage.method.companion is not None]
        if (settings.accumulate > 1 or settings.checkpoint_activations) and (own or companion is not None):
            raise Mistake("training.accumulate and training.checkpoint_activations save memory of plain steps; what "
                          "goes beside the steps here looks through whole ones. Leave both out.")
        if own and companion is not None:
            raise Mistake(f"the loop has one companion; stage '{own[0]}' brings one of its own, and "
                          f"{type(companion).__name__} was given too. Leave it out, or train another method.")

    # --- whole runs

    def fit(self) -> None:
        """Train to the end, from the run's checkpoint if it has one.

        Raises:
            Stopped: On SIGTERM or SIGINT, after a checkpoint.
            Mistake: If a loss is not a number; the last checkpoint stays.
        """
        shared, own = checkpoints.load(self.run.checkpoint) if self.run.checkpoint.is_file() else ({}, {})
        self._records = shared.get("records", 0)
        if ranks.rank() == 0:
            self.run.cut_records(self._records)
        with self.interrupts:
            for number in range(shared.get("stage", 0), len(self.stages)):
                resumed = number == shared.get("stage")
                self._prepare(number, shared if resumed else {}, own)
                self._train(self.stages[number])

    def _prepare(self, number: int, shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.stage, stage, self.best = number, self.stages[number], worst(self.task.better)
        for earlier, state in zip(self.stages, shared.get("earlier", ()), strict=False):
            earlier.method.load_state_dict(state)
        self.method = self.arithmetic.prepare(stage.method)
        self.method.train()
        self.companion = self._given or stage.method.companion
        if self.companion is not None:
            self.companion.to(self.accelerator.device)
        own_settings = merged(stage.optimizers, self.optimizers)
        self.optimizer = build_optimizer(self.method, self.optimizer_settings, own_settings, stages=self.stages,
                                         fused=self.arithmetic.fused)
        self.frozen = {name: teacher.network.fingerprint() for name, teacher in self.method.frozen.items()}
        per_epoch = len(self.batches)
        self.clock = Clock(0, max(1, round(stage.length * self.settings.epochs * per_epoch)), per_epoch)
        self.wrapped: nn.Module = wrap(self.method, self.clock, self.accelerator)
        self.compiling.prepare(self.method, alone=self.companion is None)
        self.turns = Turns(self.method, self.wrapped, self.optimizer, self.accelerator, self.autocast,
                           self.settings.clip_gradients, self.settings.accumulate, self.profile)
        self.profile.watch(self.method)
        if shared:
            self._restore(shared, own)

    def _restore(self, shared: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        if shared["frozen"] != self.frozen:
            raise Mistake(f"{self.run.checkpoint} was trained with other frozen networks ({shared['frozen']}) than are "
                          f"given now ({self.frozen}). Give the same weights, or start another run.")
        self.method.load_state_dict(shared["method"])
        self.optimizer.load_state_dict(shared["optimizer"])
        self.clock, self.best = replace(self.clock, step=shared["step"]), shared["best"]
        self.averages.load_state_dict(shared["averages"], self.accelerator.device)
        if self.companion is not None:
            self.companion.load_state_dict(shared["companion"])
        checkpoints.restore_own(own, self.method, self.accelerator.device)

    def _train(self, stage: Stage) -> None:
        self.display.say(", ".join([self.arithmetic.told(self.method), *self.compiling.told()]))
        self.display.start(stage.name, self.clock.step, self.clock.steps)
        try:
            while self.clock.step < self.clock.steps:
                began, first = time.monotonic(), self.clock.step
                self._epoch()
                self._end_epoch(stage, time.monotonic() - began, self.clock.step - first)
        finally:
            self.display.stop()
        self.profile.close()

    def _epoch(self) -> None:
        place = self.clock.step % self.clock.steps_per_epoch
        for batch in self.profile.batches(self.batches.epoch(self.clock.epoch, place)):
            self._step(batch)
            if self.clock.step % _LOOK_EVERY == 0:
                self._check_finite()
                self.display.advance(self.clock.step, self.batches.batch_size * ranks.world())
            if self.clock.step == self.clock.steps or self.clock.step % self.clock.steps_per_epoch == 0:
                return
            self._save_if_due()

    # --- one step

    def _step(self, batch: Batch) -> None:
        self.compiling.step()
        set_rate(self.optimizer, self.stages[self.stage].schedule or self.schedule, self.clock)
        step = Step(self.method, batch, self.clock, self.optimizer, precise=self.precise)
        aliased = self.companion is not None and self.companion.wants_aliases(self.clock.step)
        if self.companion is not None:
            with self.profile.part("beside the step"):
                self.companion.before(step)
        for turn in self.method.turns:
            self.averages.add(self.turns.take(turn, step, aliased=aliased))
        assert step.seen is not None
        with torch.no_grad():
            self.method.after_step(step.seen)
        if self.companion is not None:
            with self.profile.part("beside the step"):
                self.companion.after(step)
        self.clock = self.clock.tick()
        self.profile.step()

    # --- what is measured

    def _check_finite(self) -> None:
        bad = [name for name, value in self.averages.means().items() if not math.isfinite(value)]
        if bad:
            raise Mistake(f"the loss stopped being a number at or before step {self.clock.step}: {', '.join(bad)}. The "
                          f"last checkpoint is unharmed. Lower optimizer.lr or the terms' weights, add "
                          f"schedule.warm_up, or set training.precision=float32; then choose another --run.")

    def _end_epoch(self, stage: Stage, seconds: float, steps: int) -> None:
        self._check_finite()
        clock, losses = self.clock, self.averages.means()
        done, shown = clock.step / clock.steps_per_epoch, {"loss": losses.pop("total")}
        weights = self.method.process.weights(replace(clock, step=clock.step - 1)).tolist()
        found = cache.turn_over(self.method.frozen, self.accelerator.device)
        shown |= {f"{name} cached": share for name, share in found.items()}
        images = steps * self.batches.batch_size * ranks.world()
        self._record({"kind": "train", "stage": stage.name, "epoch": done, "step": clock.step, "seconds": seconds,
                      "images_per_second": images / seconds, "lr": self.optimizer.param_groups[0]["lr"],
                      "peak_memory": memory.peak(self.accelerator.device), "loss": shown["loss"], "losses": losses,
                      "weights": dict(zip(self.method.process.names, weights, strict=True)),
                      **({"cached": found} if found else {})})
        if clock.epoch % self.settings.evaluate_every == 0 or clock.step == clock.steps:
            shown |= self._score(stage, done)
        self.averages.reset()
        self.save()
        self.display.epoch(stage.name, done, clock.epochs, clock.step, clock.steps, shown)

    def _score(self, stage: Stage, done: float) -> dict[str, float]:
        ranks.average_running_statistics(self.method)
        student, shown = self.method.student(), {}
        for name, batches in self.splits.items():
            with self.compiling.eager():
                everyone = score_group(self.method, batches, self.task, self.autocast)
            result = everyone[self.method.deploy]
            group = {"members": everyone, "together": together(self.method)} if len(everyone) > 1 else {}
            self._record({"kind": name, "stage": stage.name, "epoch": done, "step": self.clock.step, **result, **group})
            shown[f"{name} {self.task.score}"] = result[self.task.score]
            if name == "select" and beats(result[self.task.score], self.best, self.task.better):
                self.best = result[self.task.score]
                if ranks.rank() == 0:
                    self.run.save_weights(student, best=True)
        return shown

    def _record(self, record: Mapping[str, Any]) -> None:
        if ranks.rank() == 0:
            self.run.add_record(record)
        self._records += 1

    # --- stopping and going on

    def _save_if_due(self) -> None:
        """Write a checkpoint when asked to stop, or after some minutes; several ranks agree on it, and more rarely."""
        if ranks.several() and self.clock.step % _LOOK_EVERY:
            return
        due = time.monotonic() - self._written > 60 * self.settings.checkpoint_minutes
        wishes = torch.tensor([float(self.interrupts.asked), float(due)], device=self.accelerator.device)
        asked, due = (bool(wish > 0) for wish in ranks.sum_over_ranks(wishes)) if ranks.several() else (
            self.interrupts.asked, due)
        if asked or due:
            self.save()
        if asked:
            raise Stopped(f"stopped at step {self.clock.step} of {self.clock.steps}, everything saved. "
                          f"Go on with: limbeck resume {self.run.folder}")

    def save(self) -> None:
        """Write a checkpoint."""
        cache.keep(self.method.frozen)
        shared = {
            "stage": self.stage, "step": self.clock.step, "method": self.method.state_dict(), "frozen": self.frozen,
            "earlier": [stage.method.state_dict() for stage in self.stages[:self.stage]],
            "optimizer": self.optimizer.state_dict(), "best": self.best, "averages": self.averages.state_dict(),
            "companion": self.companion.state_dict() if self.companion is not None else None, "records": self._records}
        checkpoints.save(self.run.checkpoint, shared, checkpoints.own_state(self.method, self.accelerator.device))
        self._written = time.monotonic()
