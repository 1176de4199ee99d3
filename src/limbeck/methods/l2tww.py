"""L2T-ww: meta-networks that see the teacher say which layers and channels the student matches, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.connectors import as_map, map_shape
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.process import Scheduled
from limbeck.search.meta import Unrolled
from limbeck.seen import Seen
from limbeck.terms import Supervise, Term, full


def weighed_match(student: Tensor, teacher: Tensor, pair: Tensor, channels: Tensor) -> Tensor:
    """Squared difference of two maps, weighed by the sample and by its channels.

        loss = mean_n pair_n * sum_c channels_nc * mean_hw (t_nchw - s_nchw)^2

    Args:
        student: Maps, (N, C, H, W), connected to the teacher's channels. Gradients flow here.
        teacher: Maps, (N, C, H', W'), resized bilinearly to the student's.
        pair: How much these two layers matter to each sample, (N,). Gradients flow here.
        channels: How much each channel of the teacher's does, (N, C). Gradients flow here.

    Returns:
        Scalar, in squared units of the features.
    """
    if teacher.shape[2:] != student.shape[2:]:
        teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
    return (pair * (channels * (teacher - student).square().sum((2, 3))).sum(dim=1)).mean() / student[0, 0].numel()


class Importance(nn.Module):
    """What of a pair of layers matters, read off the teacher's mean over positions.

    Args:
        channels: C of the teacher's layer.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.pair, self.channels = nn.Linear(channels, 1), nn.Linear(channels, channels)
        nn.init.ones_(self.pair.bias)
        nn.init.zeros_(self.channels.weight)
        nn.init.zeros_(self.channels.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Weight of the pair, (N,), in [0, 6], and of its channels, (N, C), 1 together and at first all the same."""
        return F.relu6(self.pair(pooled)).squeeze(1), self.channels(pooled).softmax(dim=1)


class Weighed(Term):
    """A pair of layers, matched as far as a meta-network finds that it matters; that network is not the term's own.

    Args:
        student: The student's tap.
        source: The teacher's tap.
        connect: Makes the student's map one of the teacher's channels; trained with the student.
        meta: Mean over positions of the teacher's map -> weights of the pair and of its channels.
    """

    owner = "student"
    meta: Importance

    def __init__(self, student: str, source: str, connect: nn.Module, meta: Importance):
        super().__init__()
        self.reads, self.connect = (f"student.{student}", f"teacher.{source}"), connect
        self.__dict__["meta"] = meta

    def forward(self, seen: Seen) -> Tensor:
        own, source = self.connect(as_map(seen[self.reads[0]])), full(as_map(seen.detached(self.reads[1])))
        with torch.autocast(own.device.type, enabled=False):
            return weighed_match(full(own), source, *self.meta(source.mean((2, 3))))


def l2tww(student: Network, teacher: Network, setting: Setting, *, weight: float = 0.5, steps: int = 2, every: int = 1,
          meta_lr: float = 1e-4, meta_weight_decay: float = 1e-4, teacher_taps: Sequence[str] | None = None,
          student_taps: Sequence[str] | None = None) -> Method:
    """CE + weight * sum over pairs of layers of mean_n a(x_n) sum_c w_c(x_n) |t_c - r(s)_c|^2 / HW.

    a and w are meta-networks of each pair, r a 1 x 1 convolution. After each real step they look ahead: `steps` virtual
    steps on the matching alone, one on the labels alone, then the labels' loss on the same batch, whose slope through
    all of these steps moves them. Then the student goes on from its real step. Looking ahead costs 26 forward passes of
    the student and its matching, where the real step has 3; the student's optimiser must be SGD, whose virtual steps
    clip no gradients.

    Terms are named by layers, teacher's first: `stage3>stage2`; dashes stand in place of dots.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of the matching.
        steps: Virtual steps on the matching.
        every: Look ahead after every so many steps.
        meta_lr: Adam's learning rate for the meta-networks.
        meta_weight_decay: Its L2 penalty.
        teacher_taps: Layers to match; None takes all stages.
        student_taps: Layers to match them with, each with each; None takes all stages.

    Source: Jang et al., Learning What and Where to Transfer, ICML 2019, arXiv:1905.05901; numbers of the authors' code,
    whose student has SGD 0.1, weight decay 1e-4 and a cosine over 200 epochs. There each step that is looked back
    through counts once more in the student's running statistics; here nothing of it remains.
    """
    nets, terms = nn.ModuleDict(), {}
    for source in teacher_taps or teacher.stages:
        for own in student_taps or student.stages:
            name, wide = f"{source}>{own}".replace(".", "-"), map_shape(teacher.shape(source))[0]
            nets[name] = meta = Importance(wide)
            terms[name] = Weighed(own, source, nn.Conv2d(map_shape(student.shape(own))[0], wide, 1), meta)
    matching = frozenset(terms)
    return Method(
        members={"student": student},
        frozen={"teacher": teacher},
        terms={"ce": Supervise("student", setting.task), **terms},
        process=Scheduled({"ce": 1.0, **dict.fromkeys(terms, weight)}),
        companion=Unrolled(nets, [*[matching] * steps, frozenset({"ce"})], every=every, lr=meta_lr,
                           weight_decay=meta_weight_decay),
    )
