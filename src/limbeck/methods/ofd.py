"""OFD: before the activation, the student is pulled to the teacher wherever it would show after it.

The teacher's negative values, which a ReLU hides, count as one value per channel: its margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.connectors import AsMap, as_map, projection
from limbeck.errors import Mistake
from limbeck.losses import ofd_margin
from limbeck.members import Frozen, Network
from limbeck.method import Method, Setting
from limbeck.methods.offline import deepening, offline
from limbeck.pairing import paired
from limbeck.ranks import mean_over_ranks
from limbeck.seen import Batch
from limbeck.taps.calls import still
from limbeck.terms import Match

Margins = Literal["auto", "norms", "sample"]


class Above(nn.Module):
    """The distance `losses.ofd` with the margins that belong to a layer of the teacher.

    Args:
        margin: One for each channel, (C,).
    """

    margin: Tensor

    def __init__(self, margin: Tensor):
        super().__init__()
        self.register_buffer("margin", margin)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return losses.ofd(student, teacher, self.margin)


def margins(teacher: Network, taps: Sequence[str], sample: Batch, of: Margins) -> list[Tensor]:
    """Each channel's mean negative value at the teacher's last stages before their activation.

    Args:
        teacher: The network.
        taps: Its last so many stages, before their activation.
        sample: A few images.
        of: See `ofd`.

    Raises:
        Mistake: If it is to come from norms that the network does not name.
    """
    names = getattr(teacher.module, "norm_before_relu", ())[-len(taps):]
    if of == "norms" and not names:
        raise Mistake(f"margins of batch norms need a teacher that names them in `norm_before_relu`; {teacher.name} "
                      f"does not. Set method.margins_of=sample to measure them on a batch of training images.")
    if names and of != "sample":
        norms: list[Any] = [teacher.module.get_submodule(name) for name in names]
        return [ofd_margin(norm.weight, norm.bias) for norm in norms]
    teacher.tap(taps)
    with still(teacher.module):
        outputs = teacher.read(sample.images.to(teacher.mean.device, teacher.mean.dtype))
    measured = [_measured(as_map(outputs[tap])).to(sample.images.device) for tap in taps]
    return [margin for margin in mean_over_ranks(measured) if margin is not None]  # each rank has images of its own


def _measured(x: Tensor) -> Tensor:
    """Mean negative value of each channel of maps (N, C, H, W), or -3 deviations where 0.001 or fewer are negative."""
    below, places = x < 0, (0, 2, 3)
    mean = (x * below).sum(places) / below.sum(places).clamp_min(1)
    return torch.where(below.to(x.dtype).mean(places) > 0.001, mean, -3 * x.std(places, correction=0))


def ofd(student: Network, teacher: Network, setting: Setting, *, weight: float = 1e-3, margins_of: Margins = "auto",
        batch_statistics: bool = False) -> Method:
    """CE + weight * sum_i 2^-(n-1-i) * partial squared distance of the connected student's stage i from the teacher's.

    All before the activation; the sum runs over channels and places, the mean over the batch.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of the deepest stage; 1e-3 on CIFAR, 1e-4 on ImageNet.
        margins_of: Where margins come from. `norms`: scale and shift of the batch norms before the teacher's ReLUs, as
            published; networks of the zoo name them. `sample`: the mean negative value of each channel in a batch of
            training images (ours). `auto`: norms where the teacher names them, else the sample.
        batch_statistics: The teacher normalises by the batch, as the authors' code and mdistiller have it.

    Source: Heo et al., A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv:1904.01866. Where sizes
    differ, the larger map is averaged down to the smaller; mdistiller brings the teacher's to the student's.
    """
    pairs = [(f"{own}.pre", source) for own, source in paired(student, teacher)]
    bounds = margins(teacher, [f"{source}.pre" for _, source in pairs], setting.sample, margins_of)
    return offline(student, Frozen(teacher, batch_statistics=batch_statistics), setting, {
        source: (Match(f"student.{own}", f"teacher.{source}.pre", Above(margin), connect_source=AsMap(),
                       connect=projection(student.shape(own), teacher.shape(f"{source}.pre"))), part)
        for (own, source), margin, part in zip(pairs, bounds, deepening(len(pairs), weight), strict=True)})
