"""DIST: the student's beliefs correlate with the teacher's, over the classes of a sample and over the batch."""

from __future__ import annotations

from functools import partial

from limbeck.losses import dist as distance
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import beliefs
from limbeck.methods.offline import offline
from limbeck.terms import Match


def dist(student: Network, teacher: Network, setting: Setting, *, inter: float = 2.0, intra: float = 2.0,
         temperature: float = 4.0, ce: float = 1.0) -> Method:
    """ce * CE + T^2 (inter * (1 - mean correlation of rows) + intra * (1 - mean correlation of columns)).

    Rows and columns are those of the (N, C) matrix of beliefs softmax(z / T); N counts the batch's pixels where maps
    are answered.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        inter: Weight of the rows: how a sample's classes relate. The paper's 2 on CIFAR-100, the code's 1 on ImageNet.
        intra: Weight of the columns: how a class is seen across the batch; the same. Columns are per rank.
        temperature: T; 4 on CIFAR-100, 1 on ImageNet.
        ce: Weight of the supervised loss.

    Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536; T^2 as in
    mmrazor. The three settings for CIFAR-100 are from memory: only those for ImageNet are in the released code.
    """
    beliefs("dist", setting.task)
    at = partial(partial, distance, temperature=temperature)
    match = partial(Match, "student.logits", "teacher.logits", task=setting.task)
    return offline(student, teacher, setting, {
        "inter": (match(at(beta=1.0, gamma=0.0)), inter), "intra": (match(at(beta=0.0, gamma=1.0)), intra)}, ce=ce)
