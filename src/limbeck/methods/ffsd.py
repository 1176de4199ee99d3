"""FFSD: students learn from each other, their fused map teaches a leader, deep maps are carried to shallow stages.

Members: common students, their ensemble, the fusion with its classifier, the leader with a decoder, and a carrier (the
self-distillation module) for every student but the first and for the leader. Carriers are trained by terms of their own
and lent to the targets of others. Only the leader ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from limbeck.connectors import AsMap, as_map, map_shape
from limbeck.losses import attention_transfer, diversity_loss, soft_kl, unit_mse
from limbeck.members import Ensemble, Member, Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.fusing import Carried, Carrier, Decoder, Fusion
from limbeck.process import Schedule, Scheduled, exponential_ramp
from limbeck.terms import Match, Supervise, Term

Pulls = dict[str, tuple[Term, float | Schedule]]
_ADAM = {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}


def ffsd(student: Network, setting: Setting, *, students: int = 2, temperature: float = 2.0, diversity: float = 1e-5,
         fused: float = 10.0, carried: float = 10.0, carrier: float = 1000.0, warm_up: float = 5 / 300,
         diverse_by: Literal["attention", "l2", "none"] = "attention", fusion: bool = True,
         self_distillation: Literal["both", "students", "leader", "none"] = "both",
         diversity_scale: Literal["raw", "unit"] = "raw", feature_loss: Literal["attention", "feature"] = "attention",
         ) -> list[Stage]:
    """Students that teach each other and, fused, a leader, which alone ships.

    With A(F) the mean over channels of squares and D the mean squared difference of samples at length 1,
        student k:  CE + T^2/(M-1) sum_j KL(j || k) [k > 1: + diversity * (L_div + sum_l D(A(F_l), A(carried target_l)))]
        fusion:     CE + T^2 KL(ensemble || fusion)
        leader:     CE + T^2 KL(fusion || leader) + fused * (D(A(F), A(F_fused)) + D(A(decoded), A(all students' F)))
                    + carried * sum_l D(A(F_l), A(carried from the fused map)_l)
        carriers:   carrier * sum_l [D(G_l, F_l) + D(A(G_l), A(F_l))].
    All learn from one forward pass, peers and targets detached, so one backward gives each exactly its own gradient.

    Args:
        student: The leader; the common students are fresh copies of it.
        setting: The job.
        students: Common students, M; 1 learns without peers.
        temperature: T.
        diversity: Weight of both parts of the diversity term; the authors' 1e-5.
        fused: Weight of the leader's pull to the fused map and of the decoder.
        carried: Weight of the leader's self-distillation: 10 in the released code; 1000 is another reading of the paper.
        carrier: Scale of the carriers' own training.
        warm_up: Part of the run over which these weights rise as exp(-5 (1 - x)^2): 5 of 300 epochs in the code, not
            in the paper.
        diverse_by: `attention` (the method), `l2` (minus the distance to the maps of the student before, at all
            stages), or `none`.
        fusion: False teaches the leader by the ensemble alone.
        self_distillation: Who has carriers.
        diversity_scale: `raw` as released, `unit` with the attention normalised throughout.
        feature_loss: `attention` as released: maps are compared by attention; `feature` as printed: by themselves.

    Source: Li et al., Distilling a Powerful Student Model via Online Knowledge Distillation, TNNLS 2022,
    arXiv:2103.14473. The first student has no carrier, carriers use Adam(1e-3), the fusion weight decay 1e-5: as
    released.
    """
    stages = student.stages
    shapes = [map_shape(student.shape(stage)) for stage in stages]
    last, rising = stages[-1], partial(exponential_ramp, over=warm_up)
    names = [f"student{k}" for k in range(1, students + 1)]
    members: dict[str, Member] = {"leader": student}
    members |= {name: student.fresh(setting.seed + k) for k, name in enumerate(names, start=1)}
    members["ensemble"] = Ensemble([f"{name}.logits" for name in names])
    pulls: Pulls = {f"{name}/ce": (Supervise(name, setting.task), 1.0) for name in [*names, "leader"]}
    pulls |= {f"{one}/{other}": (Match(f"{one}.logits", f"{other}.logits", partial(soft_kl, temperature=temperature)),
                                 1 / (students - 1)) for one in names for other in names if one != other}
    training: Pulls = {}  # of carriers; last, so that what is lent is as the step before left it

    def carry(name: str) -> Carrier:
        one = Carrier(f"{name}.{last}", stages, shapes)
        members[f"carrier_{name}"] = one
        for stage in one.stages:
            match = Match(f"carrier_{name}.{stage}", f"{name}.{stage}", _both, connect_source=AsMap())
            training[f"carrier_{name}/{stage}"] = (match, carrier)
        return one

    for before, name in pairwise(names):
        if diverse_by == "l2":
            pulls |= {f"{name}/apart-{stage}": (_maps(f"{name}.{stage}", f"{before}.{stage}", unit_mse),
                                                rising(-diversity)) for stage in stages}
        if diverse_by == "attention":
            apart = partial(_diversity, scale=diversity_scale)
            pulls[f"{name}/diversity"] = (_maps(f"{name}.{last}", f"{before}.{last}", apart), rising(diversity))
            if self_distillation in ("both", "students"):
                members[f"target_{name}"] = Carried(carry(name), f"{before}.{last}", diverse=True)
                pulls |= _carried(name, stages, rising(diversity))
    teacher = "ensemble.logits"
    if fusion:
        teacher = "fusion.logits"
        same = attention_transfer if feature_loss == "attention" else unit_mse
        members["fusion"] = Fusion([f"{name}.{last}" for name in names], shapes[-1], student.num_classes)
        members["decoder"] = Decoder(f"leader.{last}", shapes[-1][0], students)
        pulls |= {
            "fusion/ce": (Supervise("fusion", setting.task), 1.0),
            "fusion/kl": (Match("fusion.logits", "ensemble.logits", partial(soft_kl, temperature=temperature)), 1.0),
            "leader/fused": (_maps(f"leader.{last}", "fusion.features", same), rising(fused)),
            "leader/decoded": (Match("decoder.maps", tuple(f"{name}.{last}" for name in names),
                                     partial(_joined, same)), rising(fused)),
        }
        if self_distillation in ("both", "leader"):
            members["target_leader"] = Carried(carry("leader"), "fusion.features", diverse=False)
            pulls |= _carried("leader", stages, rising(carried))
    pulls["leader/kl"] = (Match("leader.logits", teacher, partial(soft_kl, temperature=temperature)), 1.0)
    pulls |= training
    method = Method(members, {name: term for name, (term, _) in pulls.items()},
                    Scheduled({name: weight for name, (_, weight) in pulls.items()}), deploy="leader")
    own: dict[str, dict[str, Any]] = {name: _ADAM for name in members if name.startswith("carrier_")}
    return [Stage(method, optimizers={**own, **({"fusion": {"weight_decay": 1e-5}} if fusion else {})})]


def _carried(name: str, stages: Sequence[str], weight: float | Schedule) -> Pulls:
    """Shallow stages pulled to what was carried to them from a deep target."""
    return {f"{name}/carried-{stage}": (_maps(f"{name}.{stage}", f"target_{name}.{stage}", attention_transfer), weight)
            for stage in stages[:-1]}


def _maps(pulled: str, source: str, distance: Any) -> Match:
    return Match(pulled, source, distance, connect=AsMap(), connect_source=AsMap())


def _both(carried: Tensor, true: Tensor) -> Tensor:
    """A carrier's own distance: of maps, and of where they attend."""
    return unit_mse(carried, true) + attention_transfer(carried, true)


def _diversity(student: Tensor, before: Tensor, *, scale: Literal["raw", "unit"]) -> Tensor:
    return diversity_loss(student, before, scale=scale)


def _joined(distance: Any, decoded: Tensor, sources: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The distance to several maps one after the other along channels."""
    several = sources if isinstance(sources, tuple) else (sources,)
    return distance(decoded, torch.cat([as_map(source) for source in several], dim=1))
