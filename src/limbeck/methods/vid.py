"""VID: at every stage the student predicts the teacher's features, and is told how sure it can be of each channel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import losses
from limbeck.connectors import AsMap, Resize, Shape, as_map, map_shape
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import offline
from limbeck.pairing import paired
from limbeck.seen import Seen
from limbeck.terms import Term, full

_LEAST = 1e-5  # of a variance, as in RepDistiller


class Prediction(Term):
    """How badly a regressor on the student's layer predicts the teacher's, in nats, by a variance for each channel.

    Args:
        student: Address that is pulled.
        source: Address that is predicted.
        own: The student tap's shape.
        wanted: The teacher tap's shape.
        variance: What every channel's starts at.
        learned: Whether the variances are trained.
    """

    def __init__(self, student: str, source: str, own: Shape, wanted: Shape, *, variance: float, learned: bool):
        super().__init__()
        self.reads, self.owner = (student, source), student.partition(".")[0]
        (inputs, *size), (outputs, *limit) = map_shape(own), map_shape(wanted)
        smaller = min(size[0], limit[0]), min(size[1], limit[1])
        self.regressor = nn.Sequential(
            AsMap(), Resize(smaller, average=True), nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 1, bias=False), nn.ReLU(), nn.Conv2d(outputs, outputs, 1, bias=False))
        start = variance - _LEAST
        raw = torch.full((outputs,), start + math.log(-math.expm1(-start)))  # softplus(raw) = start
        if learned:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)

    @property
    def variance(self) -> Tensor:
        """Of each of the teacher's channels, (C,)."""
        return F.softplus(self.raw) + _LEAST

    def forward(self, seen: Seen) -> Tensor:
        student, source = self.reads
        mean = self.regressor(seen[student])
        with torch.autocast(mean.device.type, enabled=False):
            return losses.vid(full(mean), full(as_map(seen.detached(source))), self.variance)


def vid(student: Network, teacher: Network, setting: Setting, *, weight: float = 1.0, variance: float = 5.0,
        learned: bool = True) -> Method:
    """CE + weight * sum over stages of mean ((m - t)^2 / v_c + log v_c) / 2, m predicted from the student's layer.

    The regressor is three 1 x 1 convolutions with ReLUs between; v_c = softplus(r_c) + 1e-5 is learned with it.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each stage; 1 in the standard benchmark.
        variance: What every v_c starts at, in squared units of the teacher's features; above 1e-5.
        learned: Whether the v_c are trained; False keeps them, as mdistiller does by leaving them out of its optimiser.

    Raises:
        Mistake: If the variance is not above 1e-5.

    Source: Ahn et al., Variational Information Distillation for Knowledge Transfer, CVPR 2019, arXiv:1904.05835;
    regressor, mean and weight as in RepDistiller. There the v_c decay with the other weights, and so they do here.
    """
    if not variance > _LEAST:
        raise Mistake(f"vid's variance starts above {_LEAST:g}; got {variance}. Use the authors' 5.")
    return offline(student, teacher, setting, {
        source: (Prediction(f"student.{own}", f"teacher.{source}", student.shape(own), teacher.shape(source),
                            variance=variance, learned=learned), weight)
        for own, source in paired(student, teacher)})
