"""MLKD: logits matched sample by sample, class by class and over the batch, at five temperatures and in two views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from limbeck.losses import batch_correlation, class_correlation, soft_kl, standardised_kl
from limbeck.members import Frozen, Look, Network
from limbeck.method import Method, Setting
from limbeck.process import Scheduled
from limbeck.terms import Distance, Match, Supervise

_BOTH, _WEAK = (3.0, 5.0), (2.0, 6.0)  # temperatures beside the base; those that the released code mistook views at


def mlkd(student: Network, teacher: Network, setting: Setting, *, form: Literal["as_executed", "clean"] = "as_executed",
         temperature: float = 4.0, ce: float = 0.1, kd: float = 0.9, standardised: bool = False) -> Method:
    """ce * (CE of both views) + kd * (KL, class and batch correlation at each temperature T, in both views).

    The second view is strongly augmented; both networks look at both, so a step costs twice as much. With T from
    {temperature, 2, 3, 5, 6}, KL times T^2, and m the share of samples on which the teacher is at most as sure as on
    the median one, m_c likewise of classes, summed over the batch, by the first view:
        as_executed: kl = m sum_T KL + KL_2 + KL_6,   class = m_c sum_T CC,   batch = m sum_T BC   in the first view,
                     kl-strong = KL_temperature + KL_3 + KL_5   in the second.
        clean:       in either view, by its own beliefs, sum_T of KL over the samples on which the teacher is at least
                     as sure as on the median one, of CC over such classes, of BC over such samples.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `as_executed`, what the released code comes to and its numbers were made with; or `clean`, our reading of
            what was meant, not a published method: the masks choose entries, and the strong view is treated alike.
        temperature: The first of the five; 1 on ImageNet.
        ce: Weight of the supervised losses; 0.5 on ImageNet.
        kd: Weight of everything else; 0.5 on ImageNet.
        standardised: Standardise the logits of the KL alone (LSKD). Its authors then take temperature = 2 and kd = 9.

    Source: Jin, Wang, Lin, Multi-Level Logit Distillation, CVPR 2023, and its code. There the masks, of the half on
    which the teacher is less sure, multiply losses that are means already, and the strong correlations are computed
    and dropped. The authors' rate on CIFAR-100 is 0.025. Compare it with methods that are given the strong view too.
    """
    kl = standardised_kl if standardised else soft_kl
    looks = {"": ("student", "teacher"), "-strong": ("student-strong", "teacher-strong")}
    distances = _executed(kl, temperature) if form == "as_executed" else _clean(kl, temperature)
    terms = {
        f"{level}{view}": Match(f"{own}.logits", f"{source}.logits", distance)
        for view, (own, source) in looks.items() for level, distance in distances[view].items()}
    return Method(
        members={"student": student, "student-strong": Look(student)},
        frozen={"teacher": teacher, "teacher-strong": Frozen(teacher, view=0)},
        terms={"ce": Supervise("student", setting.task), "ce-strong": Supervise("student-strong", setting.task),
               **terms},
        process=Scheduled({"ce": ce, "ce-strong": ce, **dict.fromkeys(terms, kd)}),
        views=("strong",))


def _executed(kl: Distance, temperature: float) -> Mapping[str, Mapping[str, Distance]]:
    """By view, then by level, as the released code has it."""
    every = (temperature, *_BOTH, *_WEAK)

    def weak(student: Tensor, teacher: Tensor) -> Tensor:
        return (_less_sure(_samples(teacher)) * _over(every, kl, student, teacher)
                + _over(_WEAK, kl, student, teacher))

    def classes(student: Tensor, teacher: Tensor) -> Tensor:
        return _less_sure(_classes(teacher)) * _over(every, class_correlation, student, teacher)

    def batch(student: Tensor, teacher: Tensor) -> Tensor:
        return _less_sure(_samples(teacher)) * _over(every, batch_correlation, student, teacher)

    return {"": {"kl": weak, "class": classes, "batch": batch},
            "-strong": {"kl": partial(_over, (temperature, *_BOTH), kl)}}


def _clean(kl: Distance, temperature: float) -> Mapping[str, Mapping[str, Distance]]:
    """By view, then by level, with masks that choose entries, and both views alike."""
    every = (temperature, *_BOTH, *_WEAK)

    def samples(student: Tensor, teacher: Tensor) -> Tensor:
        sure = _sure(_samples(teacher))[:, None]
        return _over(every, kl, torch.where(sure, student, teacher), teacher)  # equal logits: neither loss nor gradient

    def classes(student: Tensor, teacher: Tensor) -> Tensor:
        return _over(every, partial(class_correlation, counted=_sure(_classes(teacher))), student, teacher)

    def batch(student: Tensor, teacher: Tensor) -> Tensor:
        return _over(every, partial(batch_correlation, counted=_sure(_samples(teacher))), student, teacher)

    levels = {"kl": samples, "class": classes, "batch": batch}
    return {"": levels, "-strong": levels}


def _over(temperatures: Sequence[float], distance: Distance, student: Tensor, teacher: Tensor) -> Tensor:
    """The distance summed over temperatures."""
    return torch.stack([distance(student, teacher, temperature=t) for t in temperatures]).sum()


def _samples(logits: Tensor) -> Tensor:
    """How sure the teacher is of each sample, (N,)."""
    return logits.softmax(dim=1).amax(dim=1)


def _classes(logits: Tensor) -> Tensor:
    """How much of the batch the teacher takes for each class, (C,)."""
    return logits.softmax(dim=1).sum(dim=0)


def _less_sure(confidence: Tensor) -> Tensor:
    """Share of entries at or below the median: a half, or more where many are equal."""
    return (confidence <= confidence.quantile(0.5)).to(confidence.dtype).mean()


def _sure(confidence: Tensor) -> Tensor:
    """Which entries are at or above the median, bool."""
    return confidence >= confidence.quantile(0.5)
