"""FT: the teacher's last map, put in fewer channels by a paraphraser, is what a translator makes of the student's.

The paraphraser, the encoder of an auto-encoder on that map, is a member that is trained first and frozen then.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Literal

from torch import nn

from limbeck.config import ScheduleSettings
from limbeck.connectors import AsMap, as_map, map_shape
from limbeck.losses import factor_transfer, hint
from limbeck.members import Frozen, Member, Network
from limbeck.method import Method, Setting, Stage
from limbeck.pairing import paired
from limbeck.process import Scheduled
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match, Supervise


def convolutions(*widths: int, norm: bool = False, transposed: bool = False) -> nn.Sequential:
    """3 x 3 convolutions from each width to the next, batch norm behind each if asked for, and LeakyReLU(0.1).

    Args:
        widths: Channels that come in, and of each layer.
        norm: Whether there is batch norm.
        transposed: Whether they are transposed, as in a decoder.
    """
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [kind(inputs, outputs, 3, padding=1), *[nn.BatchNorm2d(outputs)] * norm, nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class Paraphraser(Member):
    """What the teacher's map says, in other words: its factor.

    Args:
        source: Address of the map.
        channels: Its channels.
        width: Channels of the factor.
    """

    def __init__(self, source: str, channels: int, width: int):
        super().__init__()
        self.reads = (source,)
        self.encoder = convolutions(channels, channels, width, width)

    def forward(self, seen: Seen) -> Outputs:
        return {"factor": self.encoder(as_map(seen.detached(self.reads[0])))}


def ft(student: Network, teacher: Network, setting: Setting, *, form: Literal["staged", "joint"] = "staged",
       mode: Literal["repdistiller", "paper"] = "repdistiller", weight: float = 200.0, rate: float = 0.5,
       init_length: float = 1 / 8, init_rate: float = 0.2) -> Method | list[Stage]:
    """staged: first mean (decoder(factor) - map)^2 trains the paraphraser; then CE + weight * distance of factors.

    joint (ours): the paraphraser learns beside the student, from the start.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `staged`, as published, or `joint`.
        mode: Distance of factors: `repdistiller`, of their attention maps, to which the standard benchmark's weight
            belongs; `paper`, of the factors themselves.
        weight: Of the distance; 200 in the benchmark. For `paper` the authors' 500; torchdistill takes 1000.
        rate: The factor's channels are so many of the teacher's.
        init_length: Length of the first stage, in lengths of the run: 30 epochs beside 240 in the benchmark.
        init_rate: Learning rate of the first stage, in times the run's, constant: the benchmark's 0.01 beside 0.05.

    Source: Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018,
    arXiv:1802.04977; networks, weight and stages as in RepDistiller.
    """
    own, stage = paired(student, teacher)[-1]
    source, inputs, channels = f"teacher.{stage}", map_shape(student.shape(own))[0], map_shape(teacher.shape(stage))[0]
    width = max(1, int(rate * channels))
    paraphraser = Paraphraser(source, channels, width)
    reconstruction = Match("paraphraser.factor", source, hint, connect_source=AsMap(),
                           connect=convolutions(width, width, channels, channels, transposed=True))
    factor = Match(f"student.{own}", "paraphraser.factor", partial(factor_transfer, mode=mode),
                   connect=nn.Sequential(AsMap(), convolutions(inputs, inputs, width, width, norm=True)))
    terms, weights = {"ce": Supervise("student", setting.task), "factor": factor}, {"ce": 1.0, "factor": weight}
    both: dict[str, Member] = {"student": student, "paraphraser": paraphraser}
    if form == "joint":
        return Method(both, {**terms, "reconstruction": reconstruction}, Scheduled({**weights, "reconstruction": 1.0}),
                      frozen={"teacher": teacher})
    first = Method(both, {"reconstruction": reconstruction}, Scheduled({"reconstruction": 1.0}),
                   frozen={"teacher": teacher})
    then = Method({"student": student}, terms, Scheduled(weights),
                  frozen={"teacher": teacher, "paraphraser": Frozen(paraphraser)})
    slow = ScheduleSettings(drops=(0.0,), factor=init_rate)  # one drop, at the start
    return [Stage(first, init_length, "paraphraser", slow), Stage(then)]
