"""DML: networks that learn side by side, each pulled to what every other one believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from limbeck.members import Network
from limbeck.method import Method, Setting, Turn
from limbeck.methods.answers import towards
from limbeck.methods.online import group, online, supervision


def dml(student: Network, setting: Setting, *, peers: Sequence[Network] = (), copies: int = 1,
        form: Literal["simultaneous", "alternating"] = "simultaneous", temperature: float = 1.0, ce: float = 1.0,
        kl: float = 1.0, share: Literal["mean", "sum"] = "mean") -> Method:
    """Each of K networks k: ce * CE + kl / (K - 1) * sum over the others j of T^2 KL(j || k).

    The others are constants to each. Terms: `ce`, `peer1/ce`..., and `student/peer1`, which pulls the student to
    peer 1.

    Args:
        student: Learns, and ships.
        setting: The job.
        peers: Who learns beside it, of any architecture; none for copies of the student.
        copies: Untrained copies of the student that learn beside it, where no peers are given.
        form: `simultaneous`: all from one forward pass, in one step. `alternating`, as published: one network after the
            other, each from a new forward pass, in which the networks before it have been stepped already. It takes K
            times as long, and batch norm counts each batch K times.
        temperature: T; the authors soften nothing. FFSD's comparisons have 2.
        ce: Weight of the supervised losses.
        kl: Weight of the divergences.
        share: `mean` divides by K - 1, as printed; `sum` does not, as in the authors' code. For two networks they are
            the same.

    Raises:
        Mistake: If nobody is beside the student.

    Source: Zhang et al., Deep Mutual Learning, CVPR 2018, arXiv:1706.00384. Their ensemble form (DML_e), and the one
    with live targets of the OKDDip repository, are left out.
    """
    networks = group(student, peers, copies, setting.seed)
    weight = kl / (len(networks) - 1) if share == "mean" else kl
    pulls = {one: {f"{one}/{other}": (towards(setting.task, one, other, temperature=temperature), weight)
                   for other in networks if other != one} for one in networks}
    turns = [Turn(frozenset({supervision(one), *pulls[one]}), frozenset({one})) for one in networks]
    return online(networks, setting, {name: pull for own in pulls.values() for name, pull in own.items()}, ce=ce,
                  turns=turns if form == "alternating" else None)
