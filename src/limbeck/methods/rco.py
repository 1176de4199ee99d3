"""RCO: the student follows the route that the teacher's own training took, from one of its checkpoints to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.answers import towards
from limbeck.methods.kd import kd
from limbeck.process import Schedule, Scheduled
from limbeck.terms import Supervise


def rco(student: Network, teacher: Network, setting: Setting, *, anchors: Sequence[Network],
        form: Literal["joint", "staged"] = "joint", temperature: float = 4.0, ce: float = 0.1,
        kl: float = 0.9) -> Method | list[Stage]:
    """ce * CE + kl * T^2 KL(anchor || student), the anchors one after the other, the finished teacher last.

    Args:
        student: Learns, from each anchor with the weights that the one before left.
        teacher: Frozen; the last anchor.
        setting: The job.
        anchors: The teacher's earlier checkpoints, the earliest first: networks.anchors=[NAME@EPOCH60, NAME@EPOCH120].
            With a run of a few epochs, give fewer anchors than epochs.
        form: `joint`, the paper's one stage: equal parts of one run for every anchor, the rate going on. `staged`, its
            several stages: a whole run for every anchor, the rate starting again.
        temperature: T.
        ce: Weight of the supervised loss.
        kl: Weight of the divergence.

    Source: Jin et al., Knowledge Distillation via Route Constrained Optimization, ICCV 2019, arXiv:1904.09149, read in
    others' notes alone. A variant: which anchors is the user's choice (equal steps of the teacher's training are the
    paper's EEI; its greedy search for anchors is left out), and the weights are the standard benchmark's for KD.
    """
    route = {**{f"anchor{i}": anchor for i, anchor in enumerate(anchors, start=1)}, "teacher": teacher}
    if form == "staged":
        return [Stage(kd(student, anchor, setting, temperature=temperature, ce=ce, kl=kl), name=name)
                for name, anchor in route.items()]

    def in_part(place: int) -> Schedule:
        return lambda clock: kl if clock.step * len(route) // clock.steps == place else 0.0

    return Method(
        members={"student": student},
        frozen=route,
        terms={"ce": Supervise("student", setting.task),
               **{f"kl/{name}": towards(setting.task, "student", name, temperature=temperature) for name in route}},
        process=Scheduled({"ce": ce, **{f"kl/{name}": in_part(place) for place, name in enumerate(route)}}),
    )
