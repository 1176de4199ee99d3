"""PKT: which images of a batch are neighbours by the student's pooled features is pulled to who is by the teacher's."""

from __future__ import annotations

from limbeck.losses import pkt as divergence
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.methods.offline import offline
from limbeck.terms import Match


def pkt(student: Network, teacher: Network, setting: Setting, *, weight: float = 30000.0) -> Method:
    """CE + weight * divergence of the probabilities that two images are neighbours, on pooled features of any widths.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of the divergence; 30000 in the standard benchmark, as it is a mean over all pairs.

    Source: Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
    arXiv:1803.10837. Neighbours are per rank.
    """
    whole_images("pkt", setting.task, "it compares a batch by one vector an image")
    return offline(student, teacher, setting, {
        "neighbours": (Match("student.pooled", "teacher.pooled", divergence), weight)})
