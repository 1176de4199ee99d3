"""AB: before the student learns its task, its neurons are to be on and off where the teacher's are."""

from __future__ import annotations

from functools import partial
from typing import Literal

from limbeck.connectors import AsMap, map_shape, regression
from limbeck.losses import activation_boundary
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.offline import deepening, initialised, offline, softened
from limbeck.pairing import paired
from limbeck.terms import Match


def ab(student: Network, teacher: Network, setting: Setting, *, form: Literal["staged", "joint"] = "staged",
       weight: float = 3e-3, margin: float = 1.0, init_length: float = 1 / 8, ce: float = 1.0, kl: float = 0.0,
       temperature: float = 3.0) -> Method | list[Stage]:
    """staged: first weight * sum_i 2^-(n-1-i) * boundary loss of stage i; then ce * CE + kl * T^2 KL.

    joint (ours): both at once, from the start. Stages are taken before their activation.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `staged`, as published, or `joint`.
        weight: Of the deepest stage; the authors' 3/1000. They divide by the batch, as the loss here does.
        margin: By how much a neuron of the student is to be on or off.
        init_length: Length of the first stage, in lengths of the run: 30 epochs beside 240 in the standard benchmark.
        ce: Weight of the supervised loss. The benchmark's second stage is plain CE.
        kl: Weight of KD's term. The authors' CIFAR-10 script trains its second stage by KL alone: ce 0, kl 1.
        temperature: T of KD's term; 3 in that script.

    Source: Heo et al., Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons, AAAI
    2019, arXiv:1811.03233. The teacher is in eval mode, as in RepDistiller; the authors' script leaves it in train
    mode (training.teacher_batch_statistics). Where shapes agree there is no connector, as in both.
    """
    distance, pairs = partial(activation_boundary, margin=margin), paired(student, teacher)
    pulls = {}
    for (own, source), part in zip(pairs, deepening(len(pairs), weight), strict=True):
        shapes = student.shape(f"{own}.pre"), teacher.shape(f"{source}.pre")
        connect = AsMap() if map_shape(shapes[0]) == map_shape(shapes[1]) else regression(*shapes, activation=False)
        pulls[source] = (Match(f"student.{own}.pre", f"teacher.{source}.pre", distance, connect=connect,
                               connect_source=AsMap()), part)
    if form == "joint":
        return offline(student, teacher, setting, {**pulls, **softened(setting.task, kl, temperature)}, ce=ce)
    then = offline(student, teacher, setting, softened(setting.task, kl, temperature), ce=ce)
    return initialised(student, teacher, pulls, then, length=init_length)
