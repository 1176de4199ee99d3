"""A look at the teacher before it teaches: one near chance stops the run, with a reason; and its own answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from limbeck.data import Batches, Split
from limbeck.errors import Mistake
from limbeck.evaluation.scores import score
from limbeck.files import cache_folder, write_whole
from limbeck.members import Network
from limbeck.tasks import Task, beats


def check_teacher(teacher: Network, batches: Batches, task: Task, classes: int, data: str) -> float:
    """The teacher's score on a sample of training images, remembered by its hash.

    Args:
        teacher: The network. It goes to the sample's device if it has to be run.
        batches: A sample, without augmentation.
        task: How it is measured.
        classes: How many there are.
        data: Fingerprint of the data.

    Raises:
        Mistake: If it is not clearly better than guessing, as the task says: `Task.guess`.
    """
    memory = cache_folder() / "teachers.json"
    known = _read(memory)
    key = f"{teacher.fingerprint()}-{data}-{len(batches.split)}"
    found = known[key] if key in known else score(teacher.to(batches.device), batches, task)[task.score]
    limit = task.guess(classes, (batch.targets for batch in batches.epoch(0) if batch.targets is not None),
                       len(batches.split))
    if not beats(found, limit, task.better):
        raise Mistake(f"the teacher {teacher.name} has a {task.score} of {found:.4g} on {len(batches.split)} training "
                      f"images, and guessing can give {limit:.4g}. Give trained weights (NAME@CHECKPOINT or a run's "
                      f"folder), check teacher.statistics and the order of classes, or set "
                      f"training.check_teacher=false.")
    if key not in known:
        write_whole(memory, json.dumps({**known, key: found}))
    return found


@torch.no_grad()
def first_choices(teacher: Network, batches: Batches) -> Split:
    """The split of some batches, with the teacher's first choices as its targets.

    Args:
        teacher: The network, on the batches' device; it is put into eval mode.
        batches: Of every image of the split once, without augmentation.
    """
    teacher.eval()
    targets = torch.zeros(len(batches.split.store), dtype=torch.int64)
    for batch in batches.epoch():
        targets[batch.index.cpu()] = teacher.logits(batch.images).argmax(1).cpu()
    return replace(batches.split, targets=targets)


def _read(memory: Path) -> dict[str, float]:
    try:
        known: dict[str, float] = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return known
