"""A step never waits for the device: nothing in it asks for a number, or for a size that depends on numbers."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import ROWS, Row, built, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.training.trainer import Trainer

ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
        "is_nonzero", "bincount", "repeat_interleave"}

class Waits(TorchDispatchMode):
    """Notes every operation that would wait for a GPU, with the line of limbeck that asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1])
        if name in ASKS or masked:
            stack = traceback.extract_stack()
            if not any("torch/optim" in frame.filename for frame in stack):  # Adam's count of steps stays on the CPU
                asker = [frame for frame in stack if "torch" not in frame.filename][-2]
                if "one_hot" not in (asker.line or ""):  # looks at its labels on a CPU alone
                    self.found.append(f"{name}: {Path(asker.filename).name}:{asker.lineno} {asker.line}")
        return func(*args, **(kwargs or {}))


def waits(run: Trainer) -> set[str]:
    """What waits in two steps, after two that may still build what the run keeps."""
    run._prepare(0, {}, {})
    batches = run.batches.epoch()
    for _ in range(2):
        run._step(next(batches))
    with Waits() as mode:
        for batch in batches:
            run._step(batch)
    return set(mode.found)


ON_IMAGES = [row for row in ROWS if row.task == "classification"]
"""Tasks that answer with maps ask how many pixels count."""


@pytest.mark.parametrize("row", ON_IMAGES, ids=lambda row: row.label)
def test_no_method_waits_in_a_step(row: Row, tmp_path: Path) -> None:
    assert not waits(trainer(built(row), tmp_path))


@pytest.mark.parametrize("row", [row for row in ON_IMAGES if row.method in ("distpro", "kd")],
                         ids=lambda row: row.label)
def test_no_search_waits_in_a_step(row: Row, tmp_path: Path) -> None:
    assert not waits(trainer(built(row), tmp_path, search=True))


def test_waiting_is_noticed() -> None:
    with Waits() as mode:
        x = torch.arange(3.0)
        x.sum().item()
        x[x > 1]
    assert [found.partition(":")[0] for found in mode.found] == ["_local_scalar_dense", "index"]
