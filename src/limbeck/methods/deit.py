"""DeiT: a distillation token beside the class token learns from the teacher, through a head of its own.

The class token's head learns from the labels, the other's from the teacher, so that the two need not agree; the network
answers with the mean of both. A student without such a token is given one, and ships with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from limbeck.losses import hard_ce, soft_kl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.networks.distilled import Distilled
from limbeck.process import Scheduled
from limbeck.sources.origin import DISTILLED
from limbeck.terms import Match, Supervise


def deit(student: Network, teacher: Network, setting: Setting, *, form: Literal["hard", "soft"] = "hard",
         ce: float = 0.5, distillation: float = 0.5, temperature: float = 3.0) -> Method:
    """ce * CE(class head) + distillation * D(distillation head, teacher).

    With z_d the distillation head's logits and z_t the teacher's,
        hard: D = CE(z_d, argmax z_t)
        soft: D = T^2 KL(softmax(z_t / T) || softmax(z_d / T)), averaged over the batch.

    Args:
        student: Learns; a vision transformer with a distillation token, as timm's `*_distilled_*`, or one of timm
            without, which is given one and is then called `distilled:NAME`.
        teacher: Frozen; the paper finds convolutional ones to teach better than transformers.
        setting: The job.
        form: `hard`, the paper's better one, or `soft`.
        ce: Weight of the supervised loss; the paper's for `soft` is 0.9.
        distillation: Weight of the distillation head's; the paper's for `soft` is 0.1.
        temperature: T of `soft`; the released code's default is 1.

    Raises:
        Mistake: If the student has no distillation token and cannot be given one.

    Source: Touvron et al., Training data-efficient image transformers & distillation through attention, ICML 2021,
    arXiv:2012.12877. The released code divides the soft distance by the number of classes too; here, as in timm, it is
    not.
    """
    whole_images("deit", setting.task, "the class and the distillation token give")
    if "logits.distillation" not in student.addresses:
        student = _with_token(student)
    distance = hard_ce if form == "hard" else partial(soft_kl, temperature=temperature)
    return Method(
        members={"student": student},
        frozen={"teacher": teacher},
        terms={
            "ce": Supervise("student", setting.task, tap="logits.class"),
            "distillation": Match("student.logits.distillation", "teacher.logits", distance),
        },
        process=Scheduled({"ce": ce, "distillation": distillation}),
    )


def _with_token(network: Network) -> Network:
    factory = None if network.factory is None else partial(_built, network.factory)
    return Network(Distilled(network.module), name=f"{DISTILLED}{network.name}", size=network.size,
                   statistics=network.statistics, resize=network.resize, factory=factory)


def _built(plain: Callable[[], nn.Module]) -> nn.Module:
    return Distilled(plain())
