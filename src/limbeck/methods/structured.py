"""Structured distillation: beliefs pixel by pixel, and how alike the patches of a scene are to each other."""

from __future__ import annotations

from functools import partial

from limbeck.connectors import AsMap
from limbeck.losses import pair_wise
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import scenes, towards
from limbeck.methods.offline import context, offline
from limbeck.terms import Match


def structured(student: Network, teacher: Network, setting: Setting, *, pixel: float = 80.0, pair: float = 0.5,
               temperature: float = 1.0, patch: float = 0.5, tap: str | None = None, ce: float = 1.0,
               everywhere: bool = False) -> Method:
    """ce * CE + pixel * T^2 KL(teacher || student), a mean over pixels, + pair * distance of patches' affinities.

    Beliefs are compared at the teacher's logits' own size, features at the smaller of both sizes; their channels may
    differ.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job, a segmentation.
        pixel: Weight of the pixels' divergence. The authors' 10 is on a sum over the 8 images of a batch.
        pair: Weight of the patches' affinities.
        temperature: T; the authors soften nothing.
        patch: Side of a patch as a share of the map's; the authors' half makes 3 x 3 patches of 65 x 65 places.
        tap: Of both networks, where patches are compared; None: what the head's pyramid gives, else the last stage.
        ce: Weight of the supervised loss.
        everywhere: Let the teacher speak of pixels without a label too, as the authors' code does.

    Raises:
        Mistake: If the task is another than segmentation.

    Source: Liu et al., Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv:1903.04197, and
    its code, which pools patches by their maximum where the text has the mean. Its third, adversarial term is left out.
    """
    scenes("structured", setting.task, "it compares beliefs pixel by pixel")
    own, source = tap or context(student), tap or context(teacher)
    return offline(student, teacher, setting, {
        "pixel": (towards(setting.task, "student", "teacher", temperature=temperature, everywhere=everywhere), pixel),
        "pair": (Match(f"student.{own}", f"teacher.{source}", partial(pair_wise, patch=patch), connect=AsMap(),
                       connect_source=AsMap()), pair)}, ce=ce)
