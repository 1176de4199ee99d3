"""TAKD: networks of sizes in between hand the teacher's knowledge down to the student, by KD from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from limbeck.members import Network
from limbeck.method import Setting, Stage
from limbeck.methods.kd import kd


def takd(student: Network, teacher: Network, setting: Setting, *, assistants: Sequence[Network],
         temperature: float = 4.0, ce: float = 0.1, kl: float = 0.9) -> list[Stage]:
    """teacher -> assistant 1 -> assistant 2 ... -> student: ce * CE + kl * T^2 KL(one before || learner).

    There is a run for each; whoever learns in a stage is its `student`, whoever was before it its `teacher`. From an
    assistant that is trained already, the rest of the way is `kd` with it as the teacher.

    Args:
        student: Learns last, and ships.
        teacher: Frozen.
        setting: The job.
        assistants: Networks in between, untrained, from the largest to the smallest.
        temperature: T.
        ce: Weight of the supervised loss.
        kl: Weight of the divergence.

    Source: Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant, AAAI 2020, arXiv:1902.03393. The
    numbers are the standard benchmark's for KD. The authors search ce = 1 - kl and T (1 to 20) for every step of the
    chain, and their code divides the divergence by the number of classes, which a smaller kl does here.
    """
    chain = [teacher, *assistants, student]
    names = [*(f"assistant{i}" for i in range(1, len(chain) - 1)), "student"]
    return [Stage(kd(learner, source, setting, temperature=temperature, ce=ce, kl=kl), name=name)
            for name, (source, learner) in zip(names, pairwise(chain), strict=True)]
