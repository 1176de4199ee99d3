"""AT: at every stage, where the student looks is pulled to where the teacher looks.

Where a network looks at an image is the mean over channels of its squared activations, as a map of length 1. So
channels need not correspond, nor be as many; of two sizes the larger map is averaged down.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from limbeck.connectors import AsMap
from limbeck.losses import attention_transfer
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import offline
from limbeck.pairing import paired
from limbeck.terms import Match


def at(student: Network, teacher: Network, setting: Setting, *, weight: float = 1000.0,
       mode: Literal["code", "paper"] = "code", power: float = 2.0) -> Method:
    """CE + weight * sum over stages of the distance of attention maps.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each stage; 1000 in the standard benchmark (the authors' beta of 1e3).
        mode: `code`, the authors' squared distance, or `paper`, the norm as printed.
        power: Of the activations in an attention map.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928.
    """
    distance = partial(attention_transfer, mode=mode, power=power)
    return offline(student, teacher, setting, {
        source: (Match(f"student.{own}", f"teacher.{source}", distance, connect=AsMap(), connect_source=AsMap()),
                 weight)
        for own, source in paired(student, teacher)})
