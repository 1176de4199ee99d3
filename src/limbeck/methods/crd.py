"""CRD: an image's embedding is to be told, by the other network's memory, from those of thousands of other images.

A member embeds both networks' pooled features; one term holds the two memories and scores the embeddings against them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.data.chance import generator
from limbeck.errors import Mistake
from limbeck.losses import crd as contrast
from limbeck.losses.sizes import unit
from limbeck.members import Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.methods.offline import offline
from limbeck.ranks import gathered, mean_over_ranks, rank
from limbeck.seen import Clock, Outputs, Seen
from limbeck.terms import Term, full

_SIDES = ("student", "teacher")


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
        return {"student": unit(full(self.student(seen["student.pooled"])), 1),
                "teacher": unit(full(self.teacher(seen.detached("teacher.pooled"))), 1)}


class Contrast(Term):
    """Both directions of CRD: the student's embeddings against the teacher's memory, and the other way round.

    A score is exp(<e, memory> / T) / Z. Each direction's Z is a constant from its first step on: the mean of the
    exponentials over that step's batch, on all ranks, times the number of images.

    Args:
        setting: Which images there are, and of which classes; unlabelled images are each a class of their own.
        width: Of the embeddings.
        negatives: K, how many images of other classes each is told from; fewer where there are not so many.
        temperature: T.
        momentum: Share of the old in a row of memory after its image came by.

    Raises:
        Mistake: If all images are of one class.
    """

    indexed = True
    rows: Tensor
    labels: Tensor
    constants: Tensor

    def __init__(self, setting: Setting, *, width: int, negatives: int, temperature: float, momentum: float):
        super().__init__()
        self.reads, self.owner = tuple(f"embedding.{side}" for side in _SIDES), "embedding"
        self.temperature, self.momentum, self.seed = temperature, momentum, setting.seed
        rows = setting.rows.sort().values
        labels = torch.arange(len(rows)) if setting.labels is None else setting.labels[rows]
        others = len(rows) - int(labels.bincount().max())
        if others == 0:
            raise Mistake(f"CRD tells images from those of other classes; all {len(rows)} training images are of one. "
                          f"Give data of several classes, or use another method.")
        self.negatives, self._known = min(negatives, others), False
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        for side in _SIDES:
            self.register_buffer(side, torch.empty(len(rows), width).uniform_(-1, 1) / math.sqrt(width / 3))
        self.register_buffer("constants", torch.zeros(2))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it draws from a generator of its own
    def forward(self, seen: Seen) -> Tensor:
        embeddings = {side: seen[f"embedding.{side}"] for side in _SIDES}
        with torch.autocast(seen.batch.images.device.type, enabled=False):
            scores = self._scores(seen, embeddings)
            pairs = [score / constant for score, constant in zip(scores, self._constants(scores), strict=True)]
            return torch.stack([contrast(s[:, 0], s[:, 1:], samples=len(self.rows)) for s in pairs]).sum()

    def after_step(self, seen: Seen, clock: Clock) -> None:
        """Set the constants once; then bring each image's rows of memory, of all ranks, nearer to its embeddings."""
        outputs = seen.computed(["embedding"]).get("embedding")
        if outputs is None:  # the term was left out
            return
        if not self._known:
            self.constants.copy_(self._constants(self._scores(seen, outputs)))
        places = self._places(gathered(seen.batch.index))
        for side in _SIDES:
            memory, new = getattr(self, side), gathered(outputs[side])
            memory.index_copy_(0, places, unit(self.momentum * memory[places] + (1 - self.momentum) * new, 1))

    def _scores(self, seen: Seen, embeddings: Outputs) -> list[Tensor]:
        """exp(<e, memory> / T) of each image's own row and of K others, (N, 1 + K), for either direction."""
        own = self._places(seen.batch.index)
        chosen = torch.cat([own[:, None], self._negatives(own, seen.clock)], dim=1)
        return [(embeddings[side] @ getattr(self, other).T).gather(1, chosen).div(self.temperature).exp()
                for side, other in zip(_SIDES, reversed(_SIDES), strict=True)]

    def _negatives(self, own: Tensor, clock: Clock) -> Tensor:
        """Places of K images of other classes for each, none twice, (N, K): a function of seed, step and rank."""
        chance = generator("crd", self.seed, clock.step, rank(), device=own.device)
        keys = torch.rand(len(own), len(self.rows), generator=chance, device=own.device)
        same = self.labels == self.labels[own][:, None]
        return keys.masked_fill_(same, 2).topk(self.negatives, dim=1, largest=False, sorted=False).indices

    def _places(self, index: Tensor) -> Tensor:
        """Where images of the data set are in memory: held-out ones are not."""
        return torch.searchsorted(self.rows, index)

    def _constants(self, scores: list[Tensor]) -> Tensor:
        """Z of either direction, (2,)."""
        self._known = self._known or bool(self.constants.all())  # waits for the device, but for a step or two
        if self._known:
            return self.constants
        (mean,) = mean_over_ranks([torch.stack([score.detach().mean() for score in scores]) * len(self.rows)])
        assert mean is not None
        return mean


def crd(student: Network, teacher: Network, setting: Setting, *, weight: float = 0.8, width: int = 128,
        negatives: int = 16384, temperature: float = 0.07, momentum: float = 0.5) -> Method:
    """CE + weight * sum over both directions of the contrast of embeddings with memories.

    Args:
        student: Learns.
        teacher: Frozen; its embedding learns.
        setting: The job.
        weight: Of the contrast; 0.8 in the standard benchmark. Its CRD+KD is `kd+crd` with kd.kl=1.
        width: Of the embeddings.
        negatives: K, images of other classes that each is told from.
        temperature: T of the scores.
        momentum: Share of the old in a row of memory after its image came by.

    Source: Tian, Krishnan, Isola, Contrastive Representation Distillation, ICLR 2020, arXiv:1910.10699; settings and
    memories of RepDistiller, its positives "exact": the same image. Where there are fewer than K images of other
    classes, RepDistiller draws some several times. Its memories move before the optimiser's step, these after it, by
    the same embeddings.
    """
    whole_images("crd", setting.task, "it tells each image from those of other classes")
    term = Contrast(setting, width=width, negatives=negatives, temperature=temperature, momentum=momentum)
    return offline(student, teacher, setting, {"contrast": (term, weight)},
                   members={"embedding": Embedding(student, teacher, width)})
