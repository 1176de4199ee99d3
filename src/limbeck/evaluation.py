"""Exact scores of a network on a split, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from limbeck import ranks
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.tasks import Task
from limbeck.terms import full


@torch.no_grad()
def score(network: Network, batches: Batches, task: Task,
          autocast: Callable[[], AbstractContextManager] = nullcontext) -> dict[str, float]:
    """The task's measures over a split, each image once; the network is as it was afterwards, modes included.

    Args:
        network: In whatever mode; it is scored in eval mode.
        batches: Of this rank, without augmentation.
        task: What is measured.
        autocast: Context for low precision.

    Raises:
        Mistake: If the images have no labels.
    """
    modes = [(m, m.training) for m in network.modules()]
    network.eval()
    meter = task.meter()
    try:
        for batch in batches.epoch(0):
            if batch.targets is None:
                raise Mistake("a score needs labelled images; these have none. Give a labelled test split.")
            with autocast():
                logits = network.logits(batch.images)
            meter.update(full(logits), batch.targets)
    finally:
        for m, training in modes:
            m.training = training
    meter.sums = ranks.sum_over_ranks(meter.sums.to(batches.device))
    return meter.result()
