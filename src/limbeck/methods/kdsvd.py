"""KD-SVD: the main directions of one stage are to lie to those of the next as they do in the teacher."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from limbeck import losses
from limbeck.connectors import AsMap, Each, Resize, map_shape
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import check_channels, flows, offline
from limbeck.terms import Match


def kdsvd(student: Network, teacher: Network, setting: Setting, *, weight: float = 1.0,
          mode: Literal["mdistiller", "repdistiller"] = "mdistiller", directions: int = 1) -> Method:
    """CE + weight * sum over consecutive stages of the difference of affinities between their main directions.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each pair of stages; mdistiller's 1. RepDistiller's table leaves the method out.
        mode: How a map becomes a matrix: `mdistiller`, (C H) x W, for any channels; `repdistiller`, (H W) x C, for
            equal channels in both networks.
        directions: How many of the teacher's are compared; 1 in both codes.

    Raises:
        Mistake: If `repdistiller` meets other channels in the one network than in the other.

    Source: Lee et al., Self-supervised Knowledge Distillation Using Singular Value Decomposition, ECCV 2018,
    arXiv:1807.06819. Where a stage's maps differ in size, `mdistiller` fails; here the larger is averaged down first.
    """
    layers = flows(student, teacher)
    if mode == "repdistiller":
        check_channels("kdsvd, read as in repdistiller,", student, teacher, layers)
    distance = partial(losses.kdsvd, mode=mode, count=directions)
    pulls = {}
    for name, (own, source) in layers.items():
        sizes = [_smaller(student, a, teacher, b) for a, b in zip(own, source, strict=True)]
        connect, connect_source = (Each(*(nn.Sequential(AsMap(), Resize(size, average=True)) for size in sizes))
                                   for _ in range(2))
        pulls[name] = (Match(own, source, distance, connect=connect, connect_source=connect_source), weight)
    return offline(student, teacher, setting, pulls)


def _smaller(student: Network, own: str, teacher: Network, source: str) -> tuple[int, int]:
    """The smaller height and width of two maps, by their addresses."""
    (_, height, width), (_, rows, columns) = (map_shape(network.shape(address.partition(".")[2]))
                                              for network, address in ((student, own), (teacher, source)))
    return min(height, rows), min(width, columns)
