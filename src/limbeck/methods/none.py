"""The student alone: one member, one supervised term. What every method is compared with, and how teachers are made."""

from __future__ import annotations

from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.process import Scheduled
from limbeck.terms import Supervise


def none(student: Network, setting: Setting) -> Method:
    """Supervised training of one network."""
    return Method(
        members={"student": student},
        terms={"ce": Supervise("student", setting.task)},
        process=Scheduled({"ce": 1.0}),
    )
