"""RKD: how a batch's pooled features lie to each other, by distance and angle, is pulled to how the teacher's lie."""

from __future__ import annotations

from limbeck.losses import rkd_angle, rkd_distance
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.methods.offline import offline
from limbeck.terms import Match


def rkd(student: Network, teacher: Network, setting: Setting, *, distance: float = 25.0, angle: float = 50.0) -> Method:
    """CE + distance * distance-wise loss + angle * angle-wise loss, on pooled features of any widths.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        distance: Weight of the pairs' distances; 25 in the standard benchmark, 1 in torchdistill.
        angle: Weight of the triples' angles; 50 in the standard benchmark, 2 in torchdistill. It takes O(N^3) memory:
            a megabyte a side for 64 images, half a gigabyte for 512. Set it to 0 for larger batches.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068. Relations are per rank. Two
    equal images have distance 0, and 1e-6 in the released code.
    """
    whole_images("rkd", setting.task, "it compares a batch by one vector an image")
    return offline(student, teacher, setting, {
        "distance": (Match("student.pooled", "teacher.pooled", rkd_distance), distance),
        "angle": (Match("student.pooled", "teacher.pooled", rkd_angle), angle)})
