"""SemCKD: every student stage learns from every teacher stage, as much as attention finds them alike for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.connectors import AsMap, Resize, Shape, as_map, map_shape
from limbeck.errors import Mistake
from limbeck.losses import weighted_hint
from limbeck.losses.sizes import unit
from limbeck.members import Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import towards
from limbeck.methods.offline import offline
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match


class Attention(Member):
    """How much each teacher stage matters to each student stage, for each image: `attention.s1-t2`..., (N,).

    An image's query (key) comes from its row of the student's (teacher's) similarity matrix, which is as long as the
    batch. In a smaller batch the missing images count as having no similarity.

    Args:
        student: Its stages.
        teacher: Its stages.
        images: In a batch, at most.
    """

    def __init__(self, student: Sequence[str], teacher: Sequence[str], images: int):
        super().__init__()
        self.own = tuple(f"student.{tap}" for tap in student)
        self.theirs = tuple(f"teacher.{tap}" for tap in teacher)
        self.reads, self.images, width = self.own + self.theirs, images, max(1, images // 4)
        self.queries, self.keys = (nn.ModuleList(
            nn.Sequential(nn.Linear(images, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)) for _ in taps)
            for taps in (student, teacher))

    def forward(self, seen: Seen) -> Outputs:
        queries = [mlp(self._similarities(seen[address])) for mlp, address in zip(self.queries, self.own, strict=True)]
        keys = [mlp(self._similarities(seen.detached(a))) for mlp, a in zip(self.keys, self.theirs, strict=True)]
        alike = unit(torch.stack(queries, dim=1), 2) @ unit(torch.stack(keys, dim=1), 2).mT  # (N, S, T)
        weights = alike.softmax(dim=2)
        return {f"s{i}-t{j}": weights[:, i - 1, j - 1]
                for i in range(1, len(self.own) + 1) for j in range(1, len(self.theirs) + 1)}

    def _similarities(self, features: Tensor) -> Tensor:
        """Rows of the batch's similarity matrix, filled with zeros; (N, images)."""
        if len(features) > self.images:
            raise Mistake(f"SemCKD's attention was made for batches of {self.images} images; this one has "
                          f"{len(features)}. Give no more than training.batch_size.")
        rows = as_map(features).flatten(1)
        return F.pad(rows @ rows.mT, (0, self.images - len(rows)))


class Projection(nn.Module):
    """A student stage as a map like a teacher stage's, at the smaller of their sizes; its weights come along.

    Args:
        student: The student tap's shape.
        teacher: The teacher tap's shape.
    """

    def __init__(self, student: Shape, teacher: Shape):
        super().__init__()
        (inputs, *_), (outputs, *_) = map_shape(student), map_shape(teacher)
        self.layers = nn.Sequential(
            AsMap(), smaller(student, teacher),
            nn.Conv2d(inputs, 2 * outputs, 1, bias=False), nn.BatchNorm2d(2 * outputs), nn.ReLU(),
            nn.Conv2d(2 * outputs, 2 * outputs, 3, padding=1, bias=False), nn.BatchNorm2d(2 * outputs), nn.ReLU(),
            nn.Conv2d(2 * outputs, outputs, 1, bias=False))

    def forward(self, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return self.layers(features), weights


def smaller(student: Shape, teacher: Shape) -> Resize:
    """Averages a map down to the smaller of two sizes."""
    (_, *own), (_, *theirs) = map_shape(student), map_shape(teacher)
    return Resize((min(own[0], theirs[0]), min(own[1], theirs[1])), average=True)


def semckd(student: Network, teacher: Network, setting: Setting, *, weight: float = 400.0, kl: float = 1.0,
           temperature: float = 4.0, ce: float = 1.0) -> Method:
    """ce * CE + kl * T^2 KL + weight / S * sum over pairs of stages of mean_n a_n MSE_n(projected student, teacher).

    a is the attention, summing to 1 over the teacher's stages; S counts the student's. A pair is a term, as `s2-t3`.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of the features; 400 on CIFAR-100, 50 on ImageNet.
        kl: Weight of the divergence of softened logits.
        temperature: T.
        ce: Weight of the supervised loss.

    Source: Chen et al., Cross-Layer Distillation with Semantic Calibration, AAAI 2021, arXiv:2012.03236. The authors
    skip a batch that is smaller than the others; here its similarities are filled with zeros. They are per rank.
    """
    pairs = [(f"s{i}-t{j}", own, source) for i, own in enumerate(student.stages, start=1)
             for j, source in enumerate(teacher.stages, start=1)]
    pulls = {name: (_pair(student, teacher, name, own, source), weight / len(student.stages))
             for name, own, source in pairs}
    divergence = towards(setting.task, "student", "teacher", temperature=temperature)
    return offline(student, teacher, setting, {"kl": (divergence, kl), **pulls}, ce=ce,
                   members={"attention": Attention(student.stages, teacher.stages, setting.batch_size)})


def _pair(student: Network, teacher: Network, name: str, own: str, source: str) -> Match:
    shapes = student.shape(own), teacher.shape(source)
    return Match((f"student.{own}", f"attention.{name}"), f"teacher.{source}", _weighed,
                 connect=Projection(*shapes), connect_source=nn.Sequential(AsMap(), smaller(*shapes)))


def _weighed(student: tuple[Tensor, Tensor], teacher: Tensor) -> Tensor:
    return weighted_hint(student[0], teacher, student[1])
