"""What most methods with a teacher share: one student, one frozen teacher, a supervised term and some pulls."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from limbeck.config import ScheduleSettings
from limbeck.connectors import map_shape
from limbeck.errors import Mistake
from limbeck.members import Frozen, Member, Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.answers import towards
from limbeck.pairing import paired
from limbeck.process import Schedule, Scheduled
from limbeck.tasks import Task
from limbeck.terms import Supervise, Term

Pulls = Mapping[str, tuple[Term, float | Schedule]]
"""Term name -> (term, weight)."""

Flow = tuple[tuple[str, str], tuple[str, str]]
"""Addresses of a layer and the next one: the student's two, the teacher's two."""


def offline(student: Network, teacher: Network | Frozen, setting: Setting, pulls: Pulls, *,
            ce: float | Schedule = 1.0, members: Mapping[str, Member] | None = None) -> Method:
    """ce * supervised loss + the weighted pulls.

    Args:
        student: Learns; the member `student`.
        teacher: Frozen; read as `teacher`.
        setting: The job.
        pulls: Term name -> (term, weight).
        ce: Weight of the supervised loss.
        members: Further members that terms read.
    """
    return Method(
        members={"student": student, **(members or {})},
        frozen={"teacher": teacher},
        terms={"ce": Supervise("student", setting.task), **{name: term for name, (term, _) in pulls.items()}},
        process=Scheduled({"ce": ce, **{name: weight for name, (_, weight) in pulls.items()}}),
    )


def flows(student: Network, teacher: Network, *, stem: bool = False, suffix: str = "") -> dict[str, Flow]:
    """Each stage with the next one, by the teacher's names for them: `stage1-stage2`.

    Args:
        student: Read as `student`; its stages are `paired` with the teacher's.
        teacher: Read as `teacher`.
        stem: Begin with the stem, where both have one.
        suffix: Behind every tap: `.pre`, for stages before their activation.

    Raises:
        Mistake: If there are not two stages in each.
    """
    pairs = paired(student, teacher)
    if stem and "stem" in student.addresses and "stem" in teacher.addresses:
        pairs = [("stem", "stem"), *pairs]
    if len(pairs) < 2:
        raise Mistake(f"how features change from stage to stage takes two stages of each network; {student.name} has "
                      f"{list(student.stages)}, {teacher.name} {list(teacher.stages)}. Choose a method that compares "
                      f"single stages, or networks with more.")
    return {f"{a}-{b}": ((f"student.{own}{suffix}", f"student.{other}{suffix}"),
                         (f"teacher.{a}{suffix}", f"teacher.{b}{suffix}"))
            for (own, a), (other, b) in pairwise(pairs)}


def check_channels(method: str, student: Network, teacher: Network, layers: Mapping[str, Flow]) -> None:
    """Refuse two networks whose layers a method cannot compare channel by channel.

    Raises:
        Mistake: If a layer has other channels in the one network than in the other.
    """
    taps = {own.partition(".")[2]: source.partition(".")[2]
            for flow in layers.values() for own, source in zip(*flow, strict=True)}
    channels = {tap: (map_shape(student.shape(tap))[0], map_shape(teacher.shape(other))[0])
                for tap, other in taps.items()}
    if any(own != source for own, source in channels.values()):
        shown = ", ".join(f"{own} and {source} at {tap}" for tap, (own, source) in channels.items())
        raise Mistake(f"{method} needs equal channels in {student.name} and {teacher.name}; got {shown}. Choose two "
                      f"networks of one family and width, as resnet56 and resnet20, or another method.")


def context(network: Network) -> str:
    """The tap at which methods for dense tasks compare features: what a head's pyramid makes of the last stage (`psp`).

    That is PSPNet's and DeepLab's; in other networks it is the last stage itself.
    """
    return "psp" if "psp" in network.addresses else network.stages[-1]


def deepening(count: int, weight: float) -> list[float]:
    """The weight at the deepest of so many layers, and at each one above it half of the next one's."""
    return [weight / 2 ** (count - 1 - i) for i in range(count)]


def softened(task: Task, kl: float, temperature: float) -> Pulls:
    """KD's term beside a method's own, or in the stage after it; nothing where its weight is 0."""
    return {"kl": (towards(task, "student", "teacher", temperature=temperature), kl)} if kl else {}


def initialised(student: Network, teacher: Network, pulls: Pulls, then: Method, *, length: float) -> list[Stage]:
    """Two stages: the pulls alone, at a constant learning rate, and then another method with the same student.

    Args:
        student: Learns; the member `student`.
        teacher: Frozen; read as `teacher`.
        pulls: Of the first stage. Layers behind the deepest one that they pull stay as they are.
        then: The second stage.
        length: Of the first stage, in lengths of the run.
    """
    first = Method({"student": student}, {name: term for name, (term, _) in pulls.items()},
                   Scheduled({name: weight for name, (_, weight) in pulls.items()}), frozen={"teacher": teacher})
    return [Stage(first, length, "init", ScheduleSettings(kind="constant")), Stage(then)]
