"""LONDON: OFD, and from each stage to the next the student is to stretch features as much as the teacher does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from torch import nn

from limbeck.connectors import AsMap, Each, projection
from limbeck.losses import lipschitz
from limbeck.members import Frozen, Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.ofd import Above, Margins, margins
from limbeck.methods.offline import deepening, flows, offline
from limbeck.pairing import paired
from limbeck.process import Schedule
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match, Term


class Connected(Member):
    """The student's stages before their activation, each through its connector: two kinds of terms read them.

    Args:
        connectors: Stage -> connector.
    """

    def __init__(self, connectors: Mapping[str, nn.Module]):
        super().__init__()
        self.reads = tuple(f"student.{stage}.pre" for stage in connectors)
        self.connectors = nn.ModuleDict(dict(connectors))

    def forward(self, seen: Seen) -> Outputs:
        return {stage: connector(seen[f"student.{stage}.pre"]) for stage, connector in self.connectors.items()}


def london(student: Network, teacher: Network, setting: Setting, *, weight: float = 1e-3, stretch: float = 1 / 200,
           early: float = 0.8, late: float = 0.2, until: float = 0.6, iterations: int = 10,
           connect: Literal["first", "both"] = "first", margins_of: Margins = "auto",
           batch_statistics: bool = False) -> Method:
    """CE + weight * OFD + a * stretch * sum_i 2^-(n-1-i) * mean_n (sigma^student_in - sigma^teacher_in)^2.

    sigma_i is the largest singular value of the matrix of channels of stage i with those of the next, i = 0 ... n - 2;
    a is `early` up to the part `until` of the run, and `late` from there on.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of OFD at the deepest stage; 1e-3 on CIFAR, 1e-4 on ImageNet.
        stretch: Of the second sum; 1/200 on CIFAR. On ImageNet 0.2 / 96, with `early` and `late` 1.
        early: a before.
        late: a after.
        until: Part of the run at which a changes; 0 for `late` throughout.
        iterations: Steps of the power iteration; 10 on CIFAR, 5 on ImageNet.
        connect: Which of a student's two stages goes through OFD's connector: `first`, as released; `both` (ours).
        margins_of: Where OFD's margins come from; see `ofd`.
        batch_statistics: The teacher normalises by the batch, as the authors' code has it.

    Source: Shang et al., Lipschitz Continuity Guided Knowledge Distillation, ICCV 2021, arXiv:2108.12905, and the
    authors' code, which leaves out the paper's terms of fully connected layers and of KD. Its CIFAR script starts the
    iteration at random; here it starts at ones, as for ImageNet.
    """
    pairs = paired(student, teacher)
    bounds = margins(teacher, [f"{source}.pre" for _, source in pairs], setting.sample, margins_of)
    pulls: dict[str, tuple[Term, float | Schedule]] = {
        source: (Match(f"connected.{own}", f"teacher.{source}.pre", Above(margin), connect_source=AsMap()), part)
        for (own, source), margin, part in zip(pairs, bounds, deepening(len(pairs), weight), strict=True)}
    distance, layers = partial(lipschitz, iterations=iterations), flows(student, teacher, suffix=".pre")
    for (name, (own, source)), part in zip(layers.items(), deepening(len(pairs), stretch), strict=False):
        first, second = (address.replace("student", "connected").removesuffix(".pre") for address in own)
        pulls[name] = (Match((first, second if connect == "both" else own[1]), source, distance,
                             connect=Each(AsMap(), AsMap()), connect_source=Each(AsMap(), AsMap())),
                       _changing(part * early, part * late, until))
    connected = Connected({own: projection(student.shape(f"{own}.pre"), teacher.shape(f"{source}.pre"))
                           for own, source in pairs})
    return offline(student, Frozen(teacher, batch_statistics=batch_statistics), setting, pulls,
                   members={"connected": connected})


def _changing(early: float, late: float, until: float) -> Schedule:
    return lambda clock: early if clock.progress < until else late
