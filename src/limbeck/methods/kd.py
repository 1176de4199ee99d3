"""KD: one frozen teacher, and one term that pulls the student's softened logits to the teacher's.

What a teacher believes of the wrong classes tells which of them resemble the right one; labels do not. Dividing logits
by a temperature above 1 makes these small beliefs large enough to learn from.
"""

from __future__ import annotations

from functools import partial

from limbeck.losses import soft_kl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.process import Scheduled
from limbeck.terms import Match, Supervise


def kd(student: Network, teacher: Network, setting: Setting, *, temperature: float = 4.0, ce: float = 0.1,
       kl: float = 0.9) -> Method:
    """ce * CE + kl * T^2 KL(teacher || student).

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        temperature: T; 4 on CIFAR-100, 1 on ImageNet.
        ce: Weight of the supervised loss.
        kl: Weight of the divergence.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531; weights of the
    standard CIFAR-100 benchmark (specs/baselines.md).
    """
    return Method(
        members={"student": student},
        frozen={"teacher": teacher},
        terms={
            "ce": Supervise("student", setting.task),
            "kl": Match("student.logits", "teacher.logits", partial(soft_kl, temperature=temperature)),
        },
        process=Scheduled({"ce": ce, "kl": kl}),
    )
