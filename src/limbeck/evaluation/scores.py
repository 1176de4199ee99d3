"""Exact scores on a split, on any number of ranks: of a network, or of everyone in a group who answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from limbeck import ranks
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.evaluation.groups import ANY_RIGHT
from limbeck.evaluation.similarity import Cosines
from limbeck.members import Ensemble, Network
from limbeck.method import Method
from limbeck.seen import Batch, Clock
from limbeck.tasks import Meter, Task
from limbeck.terms import full

Scores = dict[str, float]


def score(network: Network, batches: Batches, task: Task,
          autocast: Callable[[], AbstractContextManager] = nullcontext) -> Scores:
    """The task's measures over a split, each image once; the network is as it was afterwards, modes included.

    Args:
        network: In whatever mode; it is scored in eval mode.
        batches: Of this rank, without augmentation.
        task: What is measured.
        autocast: Context for low precision.

    Raises:
        Mistake: If the images have no labels.
    """
    with resting(network):
        return _measured(lambda batch: {"network": network.logits(batch.images)}, batches, task, autocast)["network"]


def score_answers(answer: Callable[[Tensor], Tensor], batches: Batches, task: Task) -> Scores:
    """The same measures of whatever answers images (N, C, H, W) in [0, 1]: an exported file, for instance."""
    return _measured(lambda batch: {"it": answer(batch.images)}, batches, task, nullcontext)["it"]


def score_group(method: Method, batches: Batches, task: Task,
                autocast: Callable[[], AbstractContextManager] = nullcontext) -> dict[str, Scores]:
    """The measures of every member who answers, from one pass, and of the group: see `limbeck.evaluation.groups`.

    Args:
        method: In whatever mode; it is scored in eval mode.
        batches: Of this rank, without augmentation.
        task: What is measured.
        autocast: Context for low precision.

    Returns:
        Member -> measures; where several learn to classify together also `ANY_RIGHT` -> {the task's score}, and
        `SIMILARITY`.
    """
    answering = [name for name, member in method.members.items() if member.answers]
    group = together(method) if task.name == "classification" else []
    union = torch.zeros(2, dtype=torch.float64, device=batches.device)
    alike = Cosines(method, group, batches.device)

    def answers(batch: Batch) -> Mapping[str, Tensor]:
        seen = method.see(batch, Clock(0, 1, 1))
        logits = {name: seen.outputs(name)["logits"] for name in answering}
        if len(group) > 1 and batch.targets is not None and batch.targets.ndim == 1:
            right = torch.stack([logits[name].argmax(1) == batch.targets for name in group]).any(0)
            union.add_(torch.tensor([0.0, len(right)], dtype=torch.float64, device=union.device))
            union[0] += right.sum()
        alike.update(seen)
        return logits

    with resting(method):
        scores = _measured(answers, batches, task, autocast)
    if len(group) > 1:
        right, images = ranks.sum_over_ranks(union).tolist()
        scores[ANY_RIGHT] = {task.score: 100 * right / max(1.0, images)}
    return scores | alike.result()


def together(method: Method) -> list[str]:
    """Learners whose answers the member `ensemble` averages: not FFSD's leader; all networks where there is none."""
    ensemble = dict(method.members.items()).get("ensemble")
    if isinstance(ensemble, Ensemble):
        return [name for name in (address.partition(".")[0] for address in ensemble.reads) if name in method.members]
    learning = method.owners()
    return [name for name, member in method.members.items() if isinstance(member, Network) and name in learning]


@torch.no_grad()
def _measured(answers: Callable[[Batch], Mapping[str, Tensor]], batches: Batches, task: Task,
              autocast: Callable[[], AbstractContextManager]) -> dict[str, Scores]:
    meters: dict[str, Meter] = {}
    for batch in batches.epoch(0):
        if batch.targets is None:
            raise Mistake("a score needs labelled images; these have none. Give a labelled test split.")
        with autocast():
            logits = answers(batch)
        for name, answer in logits.items():
            meters.setdefault(name, task.meter()).update(full(answer), batch.targets)
    for meter in meters.values():
        meter.sums = ranks.sum_over_ranks(meter.sums.to(batches.device))
    return {name: meter.result() for name, meter in meters.items()}


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """In eval mode for a while, every part back in its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
