"""NST: at every stage, the student's channels are to be spread over the places of a map as the teacher's are."""

from __future__ import annotations

from limbeck import losses
from limbeck.connectors import AsMap
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import offline
from limbeck.pairing import paired
from limbeck.terms import Match


def nst(student: Network, teacher: Network, setting: Setting, *, weight: float = 50.0) -> Method:
    """CE + weight * sum over stages of the squared maximum mean discrepancy of channels, kernel <a, b>^2.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each stage; 50 in the standard benchmark.

    Source: Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv:1707.01219.
    """
    return offline(student, teacher, setting, {
        source: (Match(f"student.{own}", f"teacher.{source}", losses.nst, connect=AsMap(), connect_source=AsMap()),
                 weight)
        for own, source in paired(student, teacher)})
