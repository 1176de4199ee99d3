"""DGKD: the teacher and networks of sizes in between guide the student together, and each of these its smaller ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.data.chance import generator
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.answers import towards
from limbeck.process import Process, Scheduled
from limbeck.seen import Clock
from limbeck.terms import Supervise


class Dropping:
    """Another process, with some of its terms at weight 0: others at every step, drawn by the clock and a key.

    Args:
        base: The process.
        among: Terms that may fall out.
        count: How many of them do at every step.
        key: What the draw depends on beside the step.
    """

    can_vanish = True

    def __init__(self, base: Process, among: Sequence[str], count: int, key: Sequence[int | str]):
        self.names, self.base, self.count, self.key = base.names, base, count, tuple(key)
        self._places = torch.tensor([self.names.index(name) for name in among])

    def active(self, clock: Clock) -> frozenset[str]:
        return self.base.active(clock)

    def weights(self, clock: Clock) -> Tensor:
        weights = self.base.weights(clock).clone()
        order = torch.randperm(len(self._places), generator=generator(*self.key, clock.step))
        weights[self._places[order[:self.count]]] = 0
        return weights


def dgkd(student: Network, teacher: Network, setting: Setting, *, assistants: Sequence[Network], drop: int = 1,
         trained: bool = False, temperature: float = 4.0, ce: float = 0.1, kl: float = 0.9) -> list[Stage]:
    """ce * CE + kl * sum over everyone larger of T^2 KL(larger || learner), for each assistant, last for the student.

    Whoever learns in a stage is its `student`; a run for each.

    Args:
        student: Learns last, and ships.
        teacher: Frozen.
        setting: The job.
        assistants: Networks in between, from the largest to the smallest.
        drop: How many of the divergences, drawn anew for each step, are left out (the paper's stochastic learning); at
            least one stays. 0 for none.
        trained: The assistants come trained, and only the student's stage is run.
        temperature: T.
        ce: Weight of the supervised loss.
        kl: Weight of each divergence.

    Source: Son et al., Densely Guided Knowledge Distillation using Multiple Teacher Assistants, ICCV 2021,
    arXiv:2009.08825. The numbers are the standard benchmark's for KD. The authors' code has ce = 0, kl = 1 and T = 5,
    and divides each divergence by the number of classes, which a smaller kl does here.
    """
    chain = {"teacher": teacher, **{f"assistant{i}": a for i, a in enumerate(assistants, start=1)}, "student": student}
    names = list(chain)

    def stage(place: int) -> Stage:
        pulls = {f"kl/{name}": towards(setting.task, "student", name, temperature=temperature)
                 for name in names[:place]}
        process: Process = Scheduled({"ce": ce, **dict.fromkeys(pulls, kl)})
        if dropped := min(drop, len(pulls) - 1):
            process = Dropping(process, list(pulls), dropped, ("dgkd", setting.seed, place))
        method = Method({"student": chain[names[place]]}, {"ce": Supervise("student", setting.task), **pulls}, process,
                        frozen={name: chain[name] for name in names[:place]})
        return Stage(method, name=names[place])

    return [stage(place) for place in range(len(names) - 1 if trained else 1, len(names))]
