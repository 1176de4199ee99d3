"""IFVD: how far each pixel's feature strays from the mean of its class is pulled to how far it does in the teacher."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from limbeck import losses
from limbeck.connectors import AsMap
from limbeck.losses import soft_kl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import scenes
from limbeck.methods.offline import context, offline
from limbeck.tasks import Task
from limbeck.terms import Match


def ifvd(student: Network, teacher: Network, setting: Setting, *, variation: float = 200.0, kl: float = 10.0,
         temperature: float = 1.0, tap: str | None = None, ce: float = 1.0, everywhere: bool = False) -> Method:
    """ce * CE + variation * mean (M_student - M_teacher)^2 + kl / C * T^2 KL(teacher || student), means over pixels.

    M is the cosine of a pixel's feature and the mean feature of its class in the image. Beliefs are compared at the
    teacher's logits' own size, M at the smaller of both features' sizes; their channels may differ.

    Args:
        student: Learns; features and the means of classes both feel it.
        teacher: Frozen.
        setting: The job, a segmentation.
        variation: Weight of the cosines' distance.
        kl: Weight of the pixels' divergence over the number of classes C, as in the authors' code.
        temperature: T; the authors soften nothing.
        tap: Of both networks, where features are compared; None: what the head's pyramid gives, else the last stage.
        ce: Weight of the supervised loss.
        everywhere: Let pixels without a label count, as published: the teacher speaks of them too, and they are in the
            mean over cosines, where they add nothing.

    Raises:
        Mistake: If the task is another than segmentation.

    Source: Wang et al., Intra-class Feature Variation Distillation for Semantic Segmentation, ECCV 2020, and the
    authors' code. Its adversarial term (weight 0.001) is left out, as in DistPro's Table 5.
    """
    scenes("ifvd", setting.task, "it knows the mean feature of each class")
    own, source = tap or context(student), tap or context(teacher)
    strays = partial(_variation, task=setting.task, classes=student.num_classes, everywhere=everywhere)
    beliefs = partial(soft_kl, temperature=temperature, reduction="mean")
    return offline(student, teacher, setting, {
        "variation": (Match(f"student.{own}", f"teacher.{source}", strays, connect=AsMap(), connect_source=AsMap(),
                            labelled=True), variation),
        "kl": (Match("student.logits", "teacher.logits", beliefs, task=setting.task, everywhere=everywhere), kl)},
        ce=ce)


def _variation(student: Tensor, teacher: Tensor, labels: Tensor, *, task: Task, classes: int,
               everywhere: bool) -> Tensor:
    valid = task.valid(labels)
    labels = labels if valid is None else labels.where(valid, -1)
    return losses.ifvd(student, teacher, labels, classes=classes, over="all" if everywhere else "labelled")
