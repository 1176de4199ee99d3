"""What most methods with a teacher share: one student, one frozen teacher, a supervised term and some pulls."""

from __future__ import annotations

from collections.abc import Mapping

from limbeck.members import Frozen, Member, Network
from limbeck.method import Method, Setting
from limbeck.process import Schedule, Scheduled
from limbeck.terms import Supervise, Term


def offline(student: Network, teacher: Network | Frozen, setting: Setting,
            pulls: Mapping[str, tuple[Term, float | Schedule]], *, ce: float | Schedule = 1.0,
            members: Mapping[str, Member] | None = None) -> Method:
    """ce * supervised loss + the weighted pulls.

    Args:
        student: Learns; the member `student`.
        teacher: Frozen; read as `teacher`.
        setting: The job.
        pulls: Term name -> (term, weight).
        ce: Weight of the supervised loss.
        members: Further members that terms read.
    """
    return Method(
        members={"student": student, **(members or {})},
        frozen={"teacher": teacher},
        terms={"ce": Supervise("student", setting.task), **{name: term for name, (term, _) in pulls.items()}},
        process=Scheduled({"ce": ce, **{name: weight for name, (_, weight) in pulls.items()}}),
    )


def paired(student: Network, teacher: Network) -> list[tuple[str, str]]:
    """(student stage, teacher stage) from shallow to deep; networks with different numbers of stages meet at their last.

    The standard benchmark pairs its taps `feat[1:-1]` in the same way: all stages, neither stem nor pooled feature.
    """
    count = min(len(student.stages), len(teacher.stages))
    return list(zip(student.stages[-count:], teacher.stages[-count:], strict=True))
