"""LSKD: KD on standardised logits, so that the student need not match the teacher's scale, only its pattern."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from limbeck.losses import standardise, standardised_kl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import beliefs
from limbeck.methods.offline import offline
from limbeck.terms import Distance, Match


def lskd(student: Network, teacher: Network, setting: Setting, *, temperature: float = 2.0, ce: float = 0.1,
         kl: float = 9.0) -> Method:
    """ce * CE + kl * T^2 KL(teacher || student), each row of logits first brought to mean 0 and deviation 1.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        temperature: T, in standard deviations. The authors' 2; 3 for VGG-13 -> 8 and ResNet-50 -> MobileNetV2, 4 for
            ResNet-110 -> 20.
        ce: Weight of the supervised loss.
        kl: Weight of the divergence, where KD has 0.9. The authors' 9; 12 for ResNet-110 -> 20, 1 for ResNet-50 ->
            MobileNetV2.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv:2403.01427. The released code
    has T = 2 and 9 as defaults, so what it runs without the standardisation is not KD's standard. `dkd` and `mlkd` take
    standardised logits by an option.
    """
    beliefs("lskd", setting.task)
    term = Match("student.logits", "teacher.logits", partial(standardised_kl, temperature=temperature),
                 task=setting.task)
    return offline(student, teacher, setting, {"kl": (term, kl)}, ce=ce)


def on_standardised(distance: Distance) -> Distance:
    """A distance of logits, taken between standardised ones.

    Args:
        distance: From (student, teacher) logits (N, C), and targets if it wants them.
    """
    def standardised(student: Tensor, teacher: Tensor, *targets: Tensor) -> Tensor:
        return distance(standardise(student), standardise(teacher), *targets)
    return standardised
