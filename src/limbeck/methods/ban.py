"""BAN: a network teaches an untrained one of its own kind, and that one the next; the last generation ships."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.chance import generator
from limbeck.errors import Mistake
from limbeck.losses import soft_kl
from limbeck.members import Network
from limbeck.method import Setting, Stage
from limbeck.methods.answers import beliefs, towards, whole_images
from limbeck.methods.none import none
from limbeck.methods.offline import offline
from limbeck.seen import Seen
from limbeck.terms import Match, Term, full


def confidence_weighted_ce(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, samples weighing as much as the teacher is sure of its first choice (CWTM).

        loss = sum_n a_n CE_n,   a_n = max_c p^teacher_nc / sum_m max_c p^teacher_mc

    Args:
        student: Logits, (N, C). Gradients flow here.
        teacher: Logits, (N, C); how sure it is, is a constant.
        labels: True classes, (N,), int64.

    Returns:
        Scalar, in nats: a weighted mean over the batch.
    """
    sure = F.softmax(teacher.detach(), dim=1).amax(dim=1)  # (N,)
    return (sure / sure.sum() * F.cross_entropy(student, labels, reduction="none")).sum()


def permuted(logits: Tensor, order: Tensor) -> Tensor:
    """Logits with each row's largest in its place and the others among themselves in another order (DKPP).

    Args:
        logits: (N, C).
        order: For each row a permutation of the others' places, (N, C - 1).
    """
    others = torch.arange(order.shape[1], device=logits.device)
    others = others + (others >= logits.argmax(dim=1, keepdim=True))  # (N, C - 1), classes but for the largest
    return logits.scatter(1, others, logits.gather(1, others).gather(1, order))


class Permuted(Term):
    """A divergence from a teacher whose wrong classes have changed places, for each sample and step anew.

    Args:
        temperature: T.
        seed: What the permutations depend on beside the step.
    """

    reads, owner = ("student.logits", "teacher.logits"), "student"

    def __init__(self, temperature: float, seed: int):
        super().__init__()
        self.temperature, self.seed = temperature, seed

    def forward(self, seen: Seen) -> Tensor:
        student, teacher = full(seen["student.logits"]), full(seen.detached("teacher.logits"))
        drawn = torch.rand(len(teacher), teacher.shape[1] - 1, generator=generator("dkpp", self.seed, seen.clock.step))
        with torch.autocast(student.device.type, enabled=False):
            return soft_kl(student, permuted(teacher, drawn.argsort(dim=1).to(teacher.device)),
                           temperature=self.temperature)


def ban(student: Network, teacher: Network | None, setting: Setting, *, generations: int = 3,
        knowledge: Literal["kl", "cwtm", "dkpp"] = "kl", ce: float = 1.0, kl: float = 1.0,
        temperature: float = 1.0) -> list[Stage]:
    """ce * CE + kl * T^2 KL(generation before || learner), a run for every generation, each with a seed of its own.

    Without a teacher, generation 0 is trained on the labels first. Whoever learns in a stage is its `student`, the
    generation before it its `teacher`.

    Args:
        student: The first network that is trained; the later ones are untrained networks of its architecture.
        teacher: Generation 0, trained; of the student's architecture in the paper, of any here. None trains it.
        setting: The job.
        generations: How many are taught; the authors go up to 3 on CIFAR.
        knowledge: What the teacher gives: `kl`, all of its beliefs; `cwtm`, in place of both terms the labels, weighing
            by its confidence; `dkpp`, its beliefs with the wrong classes permuted. The latter two are the paper's
            ablations, which ask whether it matters what the wrong classes are.
        ce: Weight of the supervised loss; 0 is the paper's form without labels. `cwtm` has none.
        kl: Weight of what the teacher gives. Equal weights are from memory.
        temperature: T; the authors soften nothing.

    Raises:
        Mistake: If there is no generation that is taught.

    Source: Furlanello et al., Born-Again Neural Networks, ICML 2018, arXiv:1805.04770. The mean of all generations'
    beliefs (BANE) is not formed.
    """
    if generations < 1:
        raise Mistake(f"ban needs a generation that is taught; got generations={generations}. Give at least 1.")
    stages, line = [], [teacher] if teacher is not None else []
    if teacher is None:
        stages = [Stage(none(student, setting), name="generation0")]
    line += [student, *(student.fresh(setting.seed + k) for k in range(1, generations + (teacher is None)))]
    for place, (source, learner) in enumerate(pairwise(line), start=1):
        pull = _pull(knowledge, temperature, setting)
        method = offline(learner, source, setting, {knowledge: (pull, kl)}, ce=0.0 if knowledge == "cwtm" else ce)
        stages.append(Stage(method, name=f"generation{place}"))
    return stages


def _pull(knowledge: str, temperature: float, setting: Setting) -> Term:
    if knowledge == "dkpp":
        whole_images("ban with knowledge=dkpp", setting.task, "it permutes each image's wrong classes")
        return Permuted(temperature, setting.seed)
    if knowledge == "cwtm":
        beliefs("ban with knowledge=cwtm", setting.task)
        return Match("student.logits", "teacher.logits", confidence_weighted_ce, labelled=True, task=setting.task)
    return towards(setting.task, "student", "teacher", temperature=temperature)
