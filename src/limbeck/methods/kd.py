"""KD: one frozen teacher, and one term that pulls the student's softened logits to the teacher's.

What a teacher believes of the wrong classes tells which of them resemble the right one; labels do not. Dividing logits
by a temperature above 1 makes these small beliefs large enough to learn from.
"""

from __future__ import annotations

from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import towards
from limbeck.process import Scheduled
from limbeck.terms import Supervise


def kd(student: Network, teacher: Network, setting: Setting, *, temperature: float = 4.0, ce: float = 0.1,
       kl: float = 0.9, everywhere: bool = False) -> Method:
    """ce * CE + kl * T^2 KL(teacher || student); on depth ce * L1 + kl * mean |student - teacher|, the term `l1`.

    For a task that answers with maps the divergence is a mean over pixels, at the teacher's logits' own size, where
    structured distillation and IFVD take T = 1.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        temperature: T; 4 on CIFAR-100, 1 on ImageNet.
        ce: Weight of the supervised loss.
        kl: Weight of what the teacher says.
        everywhere: Of maps, let the teacher speak where the targets say nothing, too.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531; weights of the
    standard CIFAR-100 benchmark (specs/baselines.md). That on depth the teacher's output is taken as ground truth is
    DistPro's Table 6, which gives no weights.
    """
    name = "l1" if setting.task.name == "depth" else "kl"
    return Method(
        members={"student": student},
        frozen={"teacher": teacher},
        terms={
            "ce": Supervise("student", setting.task),
            name: towards(setting.task, "student", "teacher", temperature=temperature, everywhere=everywhere),
        },
        process=Scheduled({"ce": ce, name: kl}),
    )
