"""BYOT: exits behind a network's earlier stages learn from its last one, and so its stages learn from it themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from limbeck.connectors import as_map, map_shape
from limbeck.errors import Mistake
from limbeck.losses import frobenius, soft_cross_entropy, soft_kl
from limbeck.members import Ensemble, Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.process import Scheduled
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match, Supervise, Term


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Two depth-wise separable convolutions, with norm and ReLU each: the first halves the map, the second widens."""
    layers: list[nn.Module] = []
    for width, stride in ((inputs, 2), (outputs, 1)):
        layers += [nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False),
                   nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class Exit(Member):
    """A stage's own way to an answer: where to look in its map, as many halvings as stages are left, a classifier.

    Args:
        read: Address of the stage.
        channels: Of this stage and of those behind it.
        classes: Logits.
    """

    answers = True

    def __init__(self, read: str, channels: Sequence[int], classes: int):
        super().__init__()
        self.reads, own = (read,), channels[0]
        self.attention = nn.Sequential(separable(own, own), nn.BatchNorm2d(own), nn.ReLU())
        self.deepen = nn.Sequential(*(separable(a, b) for a, b in pairwise(channels)))
        self.classify = nn.Linear(channels[-1], classes)

    def forward(self, seen: Seen) -> Outputs:
        x = as_map(seen[self.reads[0]])
        where = F.interpolate(self.attention(x), x.shape[-2:], mode="bilinear", align_corners=False)
        pooled = self.deepen(x * torch.sigmoid(where)).mean((2, 3))
        return {"pooled": pooled, "logits": self.classify(pooled)}


def byot(student: Network, setting: Setting, *, alpha: float = 0.3, temperature: float = 3.0, weight: float = 0.03,
         without: Literal["last", "first", "none"] = "last", soft: Literal["ce", "kl"] = "ce") -> Method:
    """CE + sum over exits k of (1 - alpha) CE_k + alpha H(p, p_k) + weight * |A_k f_k - f|.

    H is the cross-entropy of softened beliefs, without T^2; f the pooled features, |.| the length over the whole batch,
    which grows with its root. The last exit, which is the network itself, is a constant to the others.

    Args:
        student: Learns, and ships without its exits.
        setting: The job.
        alpha: Share of the network's beliefs in what an exit learns, beside the labels.
        temperature: T.
        weight: Of the features' distance.
        without: Which exit has no such term: `last`, the one behind the last but one stage, as in the code; `first`,
            the shallowest, as the code's comment says; `none`.
        soft: How exits learn beliefs: `ce` as released; `kl` is mmrazor's, with T^2: 9 times as strong.

    Raises:
        Mistake: If the network has a single stage.

    Source: Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094, and the code of the journal version, whose
    exits these are; other networks' exits go through the widths of their stages, of which ResNet's double. The code
    draws A_k with the first batch. Its recipe has AutoAugment and Cutout, and chooses the epoch by the ensemble's test
    accuracy. The conference's exits and squared distance (known from a re-implementation) are left out.
    """
    whole_images("byot", setting.task, "its exits give")
    stages, width = student.stages, student.shape("pooled")[-1]
    if len(stages) < 2:
        raise Mistake(f"byot sets exits behind a network's earlier stages; {student.name} has {list(stages)}. Choose a "
                      f"network with more.")
    channels = [map_shape(student.shape(stage))[0] for stage in stages]
    exits: dict[str, Member] = {f"exit{k + 1}": Exit(f"student.{stage}", channels[k:], student.num_classes)
                                for k, stage in enumerate(stages[:-1])}
    left_out = {"last": list(exits)[-1], "first": "exit1", "none": None}[without]
    distance = partial(soft_cross_entropy if soft == "ce" else soft_kl, temperature=temperature)
    terms: dict[str, Term] = {"ce": Supervise("student", setting.task)}
    weights = {"ce": 1.0}
    for name in exits:
        terms |= {f"{name}/ce": Supervise(name, setting.task),
                  f"{name}/soft": Match(f"{name}.logits", "student.logits", distance)}
        weights |= {f"{name}/ce": 1 - alpha, f"{name}/soft": alpha}
        if name != left_out:
            terms[f"{name}/feature"] = Match(f"{name}.pooled", "student.pooled", frobenius,
                                             connect=nn.Linear(channels[-1], width))
            weights[f"{name}/feature"] = weight
    ensemble = Ensemble([f"{name}.logits" for name in ("student", *exits)])
    return Method({"student": student, **exits, "ensemble": ensemble}, terms, Scheduled(weights))
