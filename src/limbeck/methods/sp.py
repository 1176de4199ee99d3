"""SP: which images of a batch respond alike in the student's last stage is pulled to how it is in the teacher's."""

from __future__ import annotations

from limbeck.connectors import AsMap
from limbeck.losses import similarity_preserving
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import offline
from limbeck.terms import Match


def sp(student: Network, teacher: Network, setting: Setting, *, weight: float = 3000.0) -> Method:
    """CE + weight * distance of the batch's similarity matrices at the last stages, whatever their widths and sizes.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of the distance; 3000 in the standard benchmark.

    Source: Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682. The paper sums
    over several layers; the benchmark, and this, has the last maps alone. Similarities are per rank.
    """
    term = Match(f"student.{student.stages[-1]}", f"teacher.{teacher.stages[-1]}", similarity_preserving,
                 connect=AsMap(), connect_source=AsMap())
    return offline(student, teacher, setting, {"similarity": (term, weight)})
