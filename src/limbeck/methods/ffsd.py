"""FFSD: students learn from each other, their fused map teaches a leader, deep maps are carried to shallow stages.

Members: the common students and their ensemble; the leader with its fusion and decoder, see `leading`; a carrier (the
self-distillation module) for the leader and for every student but the first. Only the leader ships.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise, permutations
from typing import Literal

from torch import Tensor

from limbeck.errors import Mistake
from limbeck.losses import diversity_loss
from limbeck.members import Network
from limbeck.method import Setting, Stage
from limbeck.methods.answers import towards
from limbeck.methods.leading import carry, lead, lent_first, of_maps, own_optimizers
from limbeck.methods.online import online
from limbeck.process import exponential_ramp


def ffsd(student: Network, setting: Setting, *, students: int = 2, temperature: float = 2.0, diversity: float = 1e-5,
         fused: float = 10.0, carried: float = 10.0, carrier: float = 1000.0, warm_up: float = 5 / 300,
         diverse_by: Literal["attention", "l2", "none"] = "attention", fusion: bool = True,
         self_distillation: Literal["both", "students", "leader", "none"] = "both",
         diversity_scale: Literal["raw", "unit"] = "raw", feature_loss: Literal["attention", "feature"] = "attention",
         ) -> list[Stage]:
    """Students that teach each other and, fused, a leader, which alone ships.

    With A(F) the mean over channels of squares and D the mean squared difference of samples at length 1,
        student k:  CE + T^2/(M-1) sum_j KL(j || k) + diversity * (L_div + sum_l D(A(F_l), A(G_l)))
        fusion:     CE + T^2 KL(ensemble || fusion)
        leader:     CE + T^2 KL(fusion || leader) + fused * (D(A(F), A(F_fused)) + D(A(decoded), A(all students' F)))
                    + carried * sum_l D(A(F_l), A(G_l))
        carriers:   carrier * sum_l [D(H_l, F_l) + D(A(H_l), A(F_l))].
    F_l is a network's own map at stage l, H_l what its carrier makes of its deep map; G_l what the carrier, lent, makes
    of the diversity target of the student before, and for the leader of the fused map. L_div is `diversity_loss` to the
    student before; the first student has no diversity term. All learn from one forward pass, peers and targets
    detached, so one backward gives each exactly its own gradient.

    Args:
        student: The leader; the common students are fresh copies of it.
        setting: The job.
        students: Common students, M; 1 learns without peers.
        temperature: T.
        diversity: Weight of both parts of the diversity term; the authors' 1e-5.
        fused: Weight of the leader's pull to the fused map and of the decoder.
        carried: Weight of the leader's self-distillation: 10 in the released code; 1000 is a reading of the paper.
        carrier: Scale of the carriers' own training.
        warm_up: Part of the run over which these weights, the carriers' too, rise as exp(-5 (1 - x)^2): 5 of 300 epochs
            in the code, epoch by epoch; not in the paper. 0 for none.
        diverse_by: `attention` (the method); `l2`, the ablation: minus the squared distance of maps, summed over a
            sample, to those of every other student at all stages; or `none`: DML, so that the leader alone is added.
        fusion: False teaches the leader by the ensemble alone, without a carrier.
        self_distillation: Who has carriers; students have none where `diverse_by` is `none`. With `l2`, students who
            have them are kept apart at the last stage, and their shallow stages from what is carried there of the
            student before: our reading of the row "L2 with SD" of Table VI; its row "L2" has `none`.
        diversity_scale: `raw` as released; `unit`: the target in L_div has length 1, whatever the maps' scale. What the
            carriers read stays as released.
        feature_loss: `attention` as released: the leader's maps are compared by attention; `feature` as printed: by
            themselves, at length 1 all the same.

    Raises:
        Mistake: If there is no student.

    Source: Li et al., Distilling a Powerful Student Model via Online Knowledge Distillation, TNNLS 2022,
    arXiv:2103.14473. That the first student has no carrier, that carriers use Adam(1e-3), and the fusion's weight decay
    of 1e-5 are as released. The scale of `l2` is not known; ours is 1e-5 times a sum, as the weight suggests.
    """
    if students < 1:
        raise Mistake(f"the leader learns from one common student or more; got students={students}. Give at least 1.")
    stages, rising = student.stages, partial(exponential_ramp, over=warm_up)
    names = [f"student{k}" for k in range(1, students + 1)]
    networks = {name: student.fresh(setting.seed + k) for k, name in enumerate(names, start=1)}
    maps = [f"{name}.{stages[-1]}" for name in names]
    members, pulls = lead(
        student, maps, setting, temperature=temperature, fused=fused, carried=carried, carrier=carrier, warm_up=warm_up,
        fusion=fusion, self_distillation=self_distillation in ("both", "leader"), feature_loss=feature_loss)
    for one, other in permutations(names, 2):
        pulls[f"{one}/{other}"] = (towards(setting.task, one, other, temperature=temperature), 1 / (students - 1))
    carriers = names[1:] if self_distillation in ("both", "students") and diverse_by != "none" else []
    attentive, weight = diverse_by == "attention", rising(-diversity if diverse_by == "l2" else diversity)
    if attentive:
        apart = partial(diversity_loss, scale=diversity_scale)
        pulls |= {f"{name}/diversity": (of_maps(f"{name}.{stages[-1]}", f"{before}.{stages[-1]}", apart), weight)
                  for before, name in pairwise(names)}
    if diverse_by == "l2":
        pulls |= {f"{one}/apart-{other}-{stage}": (of_maps(f"{one}.{stage}", f"{other}.{stage}", _squares), weight)
                  for one, other in permutations(names, 2) for stage in (stages[-1:] if carriers else stages)}
    for name, source in zip(carriers, maps, strict=False):
        more, carrying = carry(name, student, source, weight, trained=rising(carrier), diverse=attentive)
        members, pulls = members | more, pulls | carrying
    method = online(networks, setting, lent_first(pulls), members=members, deploy="leader")
    return [Stage(method, optimizers=own_optimizers(members))]


def _squares(one: Tensor, other: Tensor) -> Tensor:
    """Squared distance of maps, summed over a sample."""
    return (one - other).square().flatten(1).sum(dim=1).mean()
