"""DKD: KD in two terms, how sure the teacher is of the answer and what it thinks of the other classes."""

from __future__ import annotations

from functools import partial

from limbeck.losses import nontarget_kl, target_kl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import beliefs
from limbeck.methods.lskd import on_standardised
from limbeck.methods.offline import offline
from limbeck.process import ramp
from limbeck.terms import Match


def dkd(student: Network, teacher: Network, setting: Setting, *, alpha: float = 1.0, beta: float = 8.0,
        temperature: float = 4.0, ce: float = 1.0, warm_up: float = 1 / 12, standardised: bool = False) -> Method:
    """ce * CE + min(1, progress / warm_up) * (alpha * TCKD + beta * NCKD), both times T^2.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        alpha: Weight of the answer's half (TCKD).
        beta: Weight of the other classes' half (NCKD). The authors': 2 for ResNet-56 -> 20 and 110 -> 32; 6 for
            WRN-40-2 -> WRN-16-2 or 40-1 and VGG-13 -> VGG-8 or MobileNetV2; 8 for 32x4 -> 8x4, for Shuffle students
            and ResNet-50 -> MobileNetV2; on ImageNet 0.5 for ResNet-34 -> 18, 2 for ResNet-50 -> MobileNet.
        temperature: T; 4 on CIFAR-100, 1 on ImageNet.
        ce: Weight of the supervised loss.
        warm_up: Part of the run over which both weights rise; the authors' 20 of 240 epochs, one of 100 on ImageNet.
            They raise them once an epoch, from 1 / 20; here they rise with every step, from 0. 0 for none.
        standardised: Standardise both sides' logits first (LSKD). Its authors then take T = 2, and alpha and beta nine
            times as large.

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679; settings of mdistiller.
    """
    beliefs("dkd", setting.task)
    pulls = {}
    for name, half, weight in (("target", target_kl, alpha), ("nontarget", nontarget_kl, beta)):
        distance = partial(half, temperature=temperature)
        term = Match("student.logits", "teacher.logits", on_standardised(distance) if standardised else distance,
                     labelled=True, task=setting.task)
        pulls[name] = term, ramp(weight, over=warm_up) if warm_up else weight
    return offline(student, teacher, setting, pulls, ce=ce)
