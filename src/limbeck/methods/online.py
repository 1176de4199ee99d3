"""What most methods of peers share: a student and its peers, all supervised, all learning, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from limbeck.errors import Mistake
from limbeck.members import Ensemble, Member, Network
from limbeck.members.branches import Branch, branch_point
from limbeck.method import Method, Setting, Turn
from limbeck.process import Schedule, Scheduled
from limbeck.terms import Supervise, Term

Pulls = Mapping[str, tuple[Term, float | Schedule]]
"""Term name -> (term, weight)."""


def group(student: Network, peers: Sequence[Network], copies: int, seed: int) -> dict[str, Network]:
    """`student`, `peer1`, `peer2`...: the peers that are given, or untrained copies of the student where none is.

    Args:
        student: The network that ships.
        peers: Of any architecture.
        copies: How many there are without peers.
        seed: Of the copies, each of which has one of its own.

    Raises:
        Mistake: If there would be nobody beside the student.
    """
    others = list(peers) or [student.fresh(seed + k) for k in range(1, copies + 1)]
    if not others:
        raise Mistake(f"peers learn from one another, so it takes two networks or more; got copies={copies} and no "
                      f"peers. Give at least copies=1, or networks.peers=[resnet20].")
    return {"student": student, **{f"peer{k}": other for k, other in enumerate(others, start=1)}}


def branched(student: Network, branches: int, seed: int, *, split: str | None = None, read: str = "",
             taps: Sequence[str] = ()) -> dict[str, Network | Branch]:
    """`student`, which is the trunk and the first branch, and `peer1`, `peer2`..., further branches of it.

    Args:
        student: The network that ships.
        branches: How many, the first included.
        seed: Of the others, each of which has one of its own.
        split: The layer behind which they part; None is the stage before the last.
        read: Address of what the others begin with; the student's layer where none is given.
        taps: Taps of the student behind that layer that are read of the others too.

    Raises:
        Mistake: If there are not two, or the student cannot be parted there.
    """
    if branches < 2:
        raise Mistake(f"branches learn from one another, so it takes two or more; got {branches}. Give one more, or "
                      f"choose method none.")
    layer = branch_point(student, split)
    others = {f"peer{k}": Branch(student, read or f"student.{layer}", layer, seed=seed + k, taps=taps)
              for k in range(1, branches)}
    return {"student": student, **others}


def branched_or_group(student: Network, peers: Sequence[Network], copies: int, seed: int, *,
                      form: Literal["branches", "networks"], split: str | None,
                      taps: Sequence[str]) -> dict[str, Network | Branch]:
    """The student's peers as branches on its trunk, or as a `group` of networks; those that are given always are."""
    if peers or form == "networks":
        return {**group(student, peers, copies, seed)}
    return branched(student, copies + 1, seed, split=split, taps=taps)


def online(networks: Mapping[str, Member], setting: Setting, pulls: Pulls, *, ce: float | Schedule = 1.0,
           members: Mapping[str, Member] | None = None, turns: Sequence[Turn] | None = None,
           views: Sequence[str] = (), deploy: str = "student") -> Method:
    """ce * every network's supervised loss + the weighted pulls; the mean of their logits is scored beside them.

    The supervised terms are `ce`, the student's, and `peer1/ce`, `peer2/ce`...

    Args:
        networks: Those who learn together, from `group` or `branched`.
        setting: The job.
        pulls: Term name -> (term, weight).
        ce: Weight of each supervised loss.
        members: Further members that terms read.
        turns: In what order terms are stepped; None is all at once.
        views: What members look at beside the images.
        deploy: Who ships.
    """
    supervised = {supervision(name): (Supervise(name, setting.task), ce) for name in networks}
    both: dict[str, tuple[Term, float | Schedule]] = {**supervised, **pulls}
    everyone = {**networks, **(members or {}), "ensemble": Ensemble([f"{name}.logits" for name in networks])}
    return Method(everyone, {name: term for name, (term, _) in both.items()},
                  Scheduled({name: weight for name, (_, weight) in both.items()}), deploy=deploy, turns=turns,
                  views=views)


def supervision(name: str) -> str:
    """What a network's supervised term is called."""
    return "ce" if name == "student" else f"{name}/ce"
