"""SLKD: networks of the teacher's architecture learn from it beside the student, which learns from it and from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from limbeck.errors import Mistake
from limbeck.members import Ensemble, Member, Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.answers import towards
from limbeck.process import Scheduled
from limbeck.terms import Supervise, Term

Pulls = dict[str, tuple[Term, float]]


def slkd(student: Network, teacher: Network, setting: Setting, *, self_teachers: int = 2,
         supervision: Literal["both", "teacher", "self_teachers"] = "both",
         form: Literal["parallel", "sequential"] = "parallel", detach: bool = True, alpha: float = 1.0,
         beta: float = 1.0, ce: float = 0.1, kl: float = 0.9, peers_ce: float = 1.0, peers_kl: float = 1.0,
         fusion: Sequence[float] | None = None, temperature: float = 4.0) -> Method | list[Stage]:
    """Self-learning teachers, `peer1`, `peer2`..., whose fused logits show the student how the teacher is learned.

    With D(s, t) = T^2 KL(t || s) on softened logits, z_f the weighted mean of the peers' logits,
        student:   alpha [ce CE + kl D(z, z_teacher)] + beta [peers_ce CE + peers_kl D(z, z_f)]
        peer k:    ce CE + kl D(z_k, z_teacher)
    Terms: `ce`, `student/teacher`, `student/peers`, `peer1/ce`, `peer1/teacher`...

    Args:
        student: Learns, and ships.
        teacher: Frozen; peers are untrained networks of its architecture, each with a seed of its own.
        setting: The job.
        self_teachers: How many peers.
        supervision: Who pulls the student: `both`; `teacher` (alpha's part alone, which is KD); or `self_teachers`
            (beta's part alone, the peers still learning from the teacher).
        form: `parallel`, all at once, or `sequential` (the paper's SLKD*): the peers first, to the end, then the
            student from the finished ones.
        detach: Whether the peers feel nothing from `student/peers`, as in the paper; False lets that term pull them
            towards the student too, as the released code does.
        alpha: Weight of the teacher's part.
        beta: Weight of the peers' part.
        ce: Share of the labels in what the teacher gives; 0.5 on ImageNet.
        kl: Share of the teacher; 0.5 on ImageNet.
        peers_ce: Weight of the labels in the peers' part; the paper's text suggests ce again.
        peers_kl: Weight of the peers; the paper's text suggests kl again.
        fusion: Weight of each peer's logits in the fused ones, in proportion; None weighs all the same.
        temperature: T; 4 on CIFAR-100, 1 on ImageNet.

    Raises:
        Mistake: If peers are wanted and there are none, or `fusion` does not fit them.

    Source: Liu, Li, Cheng, Improving Knowledge Distillation via Transferring Learning Ability, arXiv:2304.11923. All
    numbers are those of the released code, where the labels weigh 0.1 + 1 for the student on CIFAR-100; alpha, beta and
    the fusion weights are nowhere in the text. Peers train with the student's optimiser settings, as there.
    """
    by_teacher, by_peers = supervision != "self_teachers", supervision != "teacher"
    if by_peers and self_teachers < 1:
        raise Mistake(f"supervision={supervision} needs one self-teacher or more; got self_teachers={self_teachers}. "
                      f"Give at least 1, or supervision=teacher.")
    names = [f"peer{k}" for k in range(1, self_teachers + 1)] if by_peers else []
    peers = {name: teacher.fresh(setting.seed + k) for k, name in enumerate(names, start=1)}
    pulled = partial(towards, setting.task, temperature=temperature)
    own: Pulls = {"ce": (Supervise("student", setting.task), by_teacher * alpha * ce + by_peers * beta * peers_ce)}
    learning: Pulls = {}
    members: dict[str, Member] = {"student": student}
    if by_teacher:
        own["student/teacher"] = (pulled("student", "teacher"), alpha * kl)
    if by_peers:
        own["student/peers"] = (pulled("student", "ensemble", detach=detach), beta * peers_kl)
        members["ensemble"] = Ensemble([f"{name}.logits" for name in names], fusion)
    for name in names:
        learning[f"{name}/ce"] = (Supervise(name, setting.task), ce)
        learning[f"{name}/teacher"] = (pulled(name, "teacher"), kl)
    if form == "parallel" or not by_peers:
        return _method({**members, **peers}, {"teacher": teacher}, own | learning)
    return [Stage(_method(peers, {"teacher": teacher}, learning, deploy="peer1"), name="self_teachers"),
            Stage(_method(members, {"teacher": teacher, **peers}, own), name="student")]


def _method(members: Mapping[str, Member], frozen: Mapping[str, Network], pulls: Pulls, *,
            deploy: str = "student") -> Method:
    return Method(members, {name: term for name, (term, _) in pulls.items()},
                  Scheduled({name: weight for name, (_, weight) in pulls.items()}), frozen=frozen, deploy=deploy)
