"""FitNet: a layer of the student, through a regressor, is pulled to a layer of the teacher: its hint."""

from __future__ import annotations

from typing import Literal

from limbeck.connectors import AsMap, regression
from limbeck.losses import hint
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.offline import initialised, offline, softened
from limbeck.terms import Match


def fitnet(student: Network, teacher: Network, setting: Setting, *, form: Literal["joint", "staged"] = "joint",
           weight: float = 100.0, student_tap: str = "stage2", teacher_tap: str = "stage2", hint_length: float = 1 / 8,
           ce: float | None = None, kl: float | None = None, temperature: float = 4.0) -> Method | list[Stage]:
    """joint: ce * CE + weight * mean (regressor(student layer) - teacher layer)^2 + kl * T^2 KL, from the start.

    staged: first the hint alone, which trains the student up to its layer; then ce * CE + kl * T^2 KL.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `joint`, as in the standard benchmark; `staged`, as in the paper.
        weight: Of the hint.
        student_tap: The guided layer of the student: a stage, or any module's path.
        teacher_tap: The hint layer of the teacher.
        hint_length: Length of the staged form's first stage, in lengths of the run. The paper gives none that would
            carry over; 1/8 is what the benchmark gives to initialisations (30 epochs beside 240).
        ce: Weight of the supervised loss; None is 1 in the joint form, and KD's 0.1 in the staged one.
        kl: Weight of KD's term; None is 0 in the joint form, and KD's 0.9 in the staged one.
        temperature: T of KD's term.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv:1412.6550; regressor and weight as in
    RepDistiller. The paper's second stage lets the weight of its KD term fall from 4 to 1; here it stays.
    """
    staged = form == "staged"
    match = Match(f"student.{student_tap}", f"teacher.{teacher_tap}", hint, connect_source=AsMap(),
                  connect=regression(student.shape(student_tap), teacher.shape(teacher_tap)))
    soft = softened(setting.task, (0.9 if staged else 0.0) if kl is None else kl, temperature)
    ce = (0.1 if staged else 1.0) if ce is None else ce
    if not staged:
        return offline(student, teacher, setting, {"hint": (match, weight), **soft}, ce=ce)
    then = offline(student, teacher, setting, soft, ce=ce)
    return initialised(student, teacher, {"hint": (match, weight)}, then, length=hint_length)
