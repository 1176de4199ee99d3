"""AFD: where each teacher block looks is matched by the student blocks that attention picks for it, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.connectors import AsMap, as_map, map_shape
from limbeck.errors import Mistake
from limbeck.losses import attention_map
from limbeck.losses.sizes import average_pool, unit
from limbeck.members import Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import towards
from limbeck.methods.offline import offline
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match


class Attention(Member):
    """Which student blocks each teacher block is matched with, and the student's attention maps at the teacher's sizes.

    Its outputs are `t1`, `t2`..., for each teacher block its weights over the student's, (N, S); and `8x8`..., all the
    student's maps at a size that the teacher has, (N, S, H, W).

    Args:
        student: The network that learns.
        teacher: The network that teaches.
        own: The student's taps.
        sources: The teacher's taps.
        width: Of queries and keys.
    """

    def __init__(self, student: Network, teacher: Network, own: Sequence[str], sources: Sequence[str], width: int):
        super().__init__()
        self.own, self.theirs = tuple(f"student.{tap}" for tap in own), tuple(f"teacher.{tap}" for tap in sources)
        self.reads, self.width, count = self.own + self.theirs, width, len(sources)
        self.sizes = sorted({map_shape(teacher.shape(tap))[1:] for tap in sources})
        self.queries = nn.ModuleList(_embedding(map_shape(teacher.shape(tap))[0], width) for tap in sources)
        self.keys = nn.ModuleList(
            nn.Sequential(*_embedding(map_shape(student.shape(tap))[0], width), nn.ReLU()) for tap in own)
        self.for_each_teacher_block = _embedding(width, width * count)
        self.places, self.source_places = (
            nn.Parameter(nn.init.xavier_normal_(torch.empty(len(taps), width))) for taps in (own, sources))

    def forward(self, seen: Seen) -> Outputs:
        maps = [as_map(seen[address]) for address in self.own]
        sources = [as_map(seen.detached(address)) for address in self.theirs]
        keys = torch.stack([key(x.mean((2, 3))) for key, x in zip(self.keys, maps, strict=True)], dim=1)  # (N, S, D)
        keys = self.for_each_teacher_block(keys.flatten(0, 1)).view(*keys.shape[:2], len(sources), self.width)
        queries = torch.stack([query(x.mean((2, 3))) for query, x in zip(self.queries, sources, strict=True)], dim=1)
        alike = torch.einsum("nstd,ntd->nts", keys, queries) + self.source_places @ self.places.T         # (N, T, S)
        weights = (alike / math.sqrt(self.width)).softmax(dim=2)
        looks = [attention_map(x)[:, None] for x in maps]
        return {**{f"t{i}": of_one for i, of_one in enumerate(weights.unbind(1), start=1)},
                **{_named(size): torch.cat([average_pool(x, size) for x in looks], dim=1) for size in self.sizes}}


def _embedding(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def attended(student: tuple[Tensor, Tensor], teacher: Tensor) -> Tensor:
    """One teacher block's distance to all student blocks, each weighed for each image.

    With n(A) = A / |A| over the places of a map,
        loss = mean_n sum_s a_ns mean_xy (n(A^student_ns) - n(A^teacher_n))^2:
    the sum of `weighted_attention` over the student's blocks.

    Args:
        student: Attention maps at the teacher's size, (N, S, H, W), and weights a, (N, S). Gradients flow to both.
        teacher: Features, (N, C, H, W).
    """
    maps, weights = student
    gap = unit(maps.flatten(2), 2) - unit(attention_map(teacher).flatten(1), 1)[:, None]  # (N, S, HW)
    return (weights * gap.square().mean(dim=2)).sum(dim=1).mean()


def afd_attention(student: Network, teacher: Network, setting: Setting, *, weight: float = 200.0, kl: float = 0.9,
                  temperature: float = 4.0, ce: float = 1.0, width: int = 128, every: int = 1) -> Method:
    """ce * CE + kl * T^2 KL + weight * sum over the teacher's blocks of `attended`.

    Every residual block is a tap (each transformer block, each stage of a network without blocks). A teacher block is
    the term `t1`, `t2`..., shallow first. The attention of a teacher block sums to 1 over the student's blocks.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each teacher block's distance.
        kl: Weight of the divergence of softened logits.
        temperature: T.
        ce: Weight of the supervised loss.
        width: Of queries and keys.
        every: Take only every so many of the teacher's blocks, the last one included; the authors' 2 for ResNet-110.

    Raises:
        Mistake: If `every` is below 1.

    Source: Ji, Heo, Park, Show, Attend and Distill, AAAI 2021, arXiv:2102.02973, and the authors' code, from which the
    weights are. It is not the adversarial AFD of 2020, which is `afd`.
    """
    if every < 1:
        raise Mistake(f"every must be 1 or more; got {every}. 1 takes all of the teacher's blocks.")
    sources = teacher.blocks[::-1][::every][::-1]
    members = {"attention": Attention(student, teacher, student.blocks, sources, width)}
    pulls = {}
    for i, tap in enumerate(sources, start=1):
        size = _named(map_shape(teacher.shape(tap))[1:])
        pulls[f"t{i}"] = (Match((f"attention.{size}", f"attention.t{i}"), f"teacher.{tap}", attended,
                                connect_source=AsMap()), weight)
    divergence = towards(setting.task, "student", "teacher", temperature=temperature)
    return offline(student, teacher, setting, {"kl": (divergence, kl), **pulls}, ce=ce, members=members)
