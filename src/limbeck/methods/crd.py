"""CRD: an image's embedding is to be told, by the other network's memory, from those of thousands of other images.

A member embeds both networks' pooled features; one term holds the two memories and scores the embeddings against them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.data.chance import seed_of
from limbeck.errors import Mistake
from limbeck.losses import crd as contrast
from limbeck.members import Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import offline
from limbeck.ranks import gathered, mean_over_ranks, rank
from limbeck.seen import Clock, Outputs, Seen
from limbeck.terms import Term, full

_SIDES = (("student", "teacher"), ("teacher", "student"))  # whose embedding is scored, against whose memory


class Embedding(Member):
    """Both networks' pooled features in one space, at length 1: `embedding.student`, `embedding.teacher`. Both learn.

    Args:
        student: The network that learns.
        teacher: The network that teaches; only its features are read.
        width: Of the space.
    """

    reads = ("student.pooled", "teacher.pooled")

    def __init__(self, student: Network, teacher: Network, width: int):
        super().__init__()
        self.student = nn.Linear(student.shape("pooled")[0], width)
        self.teacher = nn.Linear(teacher.shape("pooled")[0], width)

    def forward(self, seen: Seen) -> Outputs:
        return {"student": F.normalize(full(self.student(seen["student.pooled"]))),
                "teacher": F.normalize(full(self.teacher(seen.detached("teacher.pooled"))))}


class Contrast(Term):
    """Both directions of CRD: the student's embeddings against the teacher's memory, and the other way round.

    A score is exp(<e, memory> / T) / Z. Z is constant from the first step on: the mean of its exp(...), times N.

    Args:
        setting: Which images there are and their labels; without labels every other image is a negative.
        width: Of the embeddings.
        negatives: K for each image.
        temperature: T.
        momentum: Share of the old in a row of memory when its image comes by.

    Raises:
        Mistake: If all images are of one class.
    """

    rows: Tensor
    labels: Tensor
    constants: Tensor

    def __init__(self, setting: Setting, *, width: int, negatives: int, temperature: float, momentum: float):
        super().__init__()
        self.reads, self.owner = ("embedding.student", "embedding.teacher"), "embedding"
        self.negatives, self.temperature, self.momentum, self.seed = negatives, temperature, momentum, setting.seed
        rows = setting.rows.sort().values
        labels = torch.arange(len(rows)) if setting.labels is None else setting.labels[rows]
        if bool((labels == labels[0]).all()):
            raise Mistake(f"CRD contrasts each image with those of other classes; all {len(rows)} are of one. Give data of "
                          f"two classes at least, or use another method.")
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        for side, _ in _SIDES:
            self.register_buffer(side, torch.empty(len(rows), width).uniform_(-1, 1) / math.sqrt(width / 3))
        self.register_buffer("constants", torch.zeros(2))
