"""ESKD: KD that stops before the student's training does; after that, the labels alone."""

from __future__ import annotations

from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import towards
from limbeck.methods.offline import offline
from limbeck.process import Schedule


def eskd(student: Network, teacher: Network, setting: Setting, *, stop: float = 0.75, temperature: float = 4.0,
         ce: float = 0.1, kl: float = 0.9) -> Method:
    """ce * CE + kl * T^2 KL(teacher || student) in the first part of the run, CE in the rest.

    The paper's other half, a teacher that itself stopped early, is how the teacher is made: `limbeck train` for a
    fraction of the epochs. Rates follow the run's length, so that all drops happen in the short run too, as they must.
    Fractions of 0.15, 0.25 and 0.5 are worth a comparison, on held-out images.

    Args:
        student: Learns.
        teacher: Frozen; at best one that was trained for a fraction of the usual epochs.
        setting: The job.
        stop: Part of the run after which the teacher is silent. The default, the second rate drop of the standard
            schedule (180 of 240 epochs), is ours: a variant.
        temperature: T.
        ce: Weight of the supervised loss until then; 1 afterwards.
        kl: Weight of the divergence until then.

    Source: Cho and Hariharan, On the Efficacy of Knowledge Distillation, ICCV 2019, arXiv:1910.01348; the weights are
    the standard benchmark's for KD.
    """
    def first(weight: float, *, then: float) -> Schedule:
        return lambda clock: weight if clock.step < stop * clock.steps else then

    match = towards(setting.task, "student", "teacher", temperature=temperature)
    return offline(student, teacher, setting, {"kl": (match, first(kl, then=0.0))}, ce=first(ce, then=1.0))
