"""Whole runs: stopped anywhere and resumed is never stopped, and two ranks agree."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.contract.steps import Broken
from limbeck.contract.trial import Trial, stages, trainer
from limbeck.errors import Stopped
from limbeck.training.trainer import Trainer


class StopsAt(Trainer):
    """A trainer that is asked to stop after its sixth step, in the middle of the second epoch."""

    def _save_if_due(self) -> None:
        self.interrupts.asked = self.clock.step == 6
        super()._save_if_due()


def resumes(trial: Trial, *, search: bool = False) -> None:
    """Stopped in the middle, saved and resumed is, bit for bit, as if never stopped; dropout included."""
    with tempfile.TemporaryDirectory() as folder:
        def run(name: str, kind: type[Trainer] = Trainer) -> Trainer:
            stage = stages(trial, dropout=0.2)[trial.stage]
            made = trainer(stage.method.train(), Path(folder) / name, search=search, kind=kind,
                           optimizers=stage.optimizers)
            made.fit()
            return made

        whole = _everything(run("whole"))
        try:
            run("parts", StopsAt)
        except Stopped:
            torch.manual_seed(99)  # whatever happened in between
        parts = _everything(run("parts"))
    differing = [key for key in whole if not _same(whole[key], parts[key])]
    if differing:
        raise Broken(f"a run that was stopped and resumed has another {', '.join(differing)} than one that was not",
                     "Keep everything that changes in buffers, and draw random numbers from torch's own generator.")


def _everything(run: Trainer) -> dict[str, Any]:
    """All that training leaves behind."""
    measured = ("seconds", "images_per_second", "peak_memory")
    records = [{k: v for k, v in record.items() if k not in measured} for record in run.run.records()]
    companion = run.companion.state_dict() if run.companion is not None else None
    return {"network or memory": run.method.state_dict(), "optimizer": run.optimizer.state_dict(), "record": records,
            "search": companion, "random state": torch.get_rng_state(), "clock": run.clock}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def ranks_agree(one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Two ranks end with the same parameters, statistics and searched weights.

    Args:
        one: Label of a fit -> the state that the first rank ended with.
        other: The same of the second.
    """
    for label, state in one.items():
        differing = [name for name, value in state.items() if not torch.equal(value, other[label][name])]
        if differing:
            more = f" and {len(differing) - 1} more" * (len(differing) > 1)
            raise Broken(f"{label}: two ranks disagree on {differing[0]}{more}",
                         "Exchange over ranks what a term remembers; draw nothing that differs from rank to rank.")
