"""ReviewKD: a fusion of the student's levels, from deep to shallow, is a member; each level of it is a term.

So a level of the teacher is also taught to all deeper levels of the student: what they hand on is asked of them again,
as in a review. At every place attention weighs a level against what came from the deeper ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.connectors import AsMap, Resize, Shape, as_map, map_shape
from limbeck.losses import hcl
from limbeck.members import Member, Network
from limbeck.method import Method, Setting
from limbeck.pairing import paired
from limbeck.process import Scheduled, ramp
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match, Supervise


class Fusion(nn.Module):
    """Attention-based fusion (ABF) of one level with what the deeper levels left.

    Args:
        student: The student tap's shape.
        teacher: The teacher tap's shape.
        middle: Width of what is handed on.
        deepest: Whether nothing deeper comes in.
    """

    def __init__(self, student: Shape, teacher: Shape, middle: int, *, deepest: bool):
        super().__init__()
        (channels, *size), (wide, height, width) = map_shape(student), map_shape(teacher)
        narrow, widen = nn.Conv2d(channels, middle, 1, bias=False), nn.Conv2d(middle, wide, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(narrow.weight, a=1)
        nn.init.kaiming_uniform_(widen.weight, a=1)
        self.narrow = nn.Sequential(narrow, nn.BatchNorm2d(middle))
        self.widen = nn.Sequential(widen, nn.BatchNorm2d(wide))
        self.attention = None if deepest else nn.Conv2d(2 * middle, 2, 1)
        self.to_own, self.to_teacher = Resize((size[0], size[1])), Resize((height, width))

    def forward(self, x: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The level as the teacher would have it, and what is handed on to the next shallower one."""
        x = self.narrow(as_map(x))
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[-2:], mode="nearest")
            own, other = torch.sigmoid(self.attention(torch.cat([x, deeper], dim=1))).split(1, dim=1)  # (N, 1, H, W)
            x = own * x + other * deeper
        x = self.to_teacher(x)
        return self.widen(x), x


class Review(Member):
    """Looks at the student's levels, live, from deep to shallow.

    Args:
        student: The network.
        taps: Its taps, shallow first.
        shapes: The teacher's shapes at its taps.
        names: What each level is called.
    """

    def __init__(self, student: Network, taps: Sequence[str], shapes: Sequence[Shape], names: Sequence[str]):
        super().__init__()
        self.reads, self.names = tuple(f"student.{tap}" for tap in taps), tuple(names)
        middle = min(512, map_shape(student.shape(taps[-1]))[0])
        self.fusions = nn.ModuleList(
            Fusion(student.shape(tap), shape, middle, deepest=tap == taps[-1])
            for tap, shape in zip(taps, shapes, strict=True))

    def forward(self, seen: Seen) -> Outputs:
        levels: Outputs = {}
        deeper: Tensor | None = None
        for address, name, fusion in reversed(list(zip(self.reads, self.names, self.fusions, strict=True))):
            levels[name], deeper = fusion(seen[address], deeper)
        return levels


def deepest(student: Network, teacher: Network) -> list[str]:
    """What both have behind their stages: the pooled feature, or a pyramid's in segmentation (`psp`); or nothing."""
    further: list[str] = ["pooled", "psp"]
    return [tap for tap in further if tap in student.addresses and tap in teacher.addresses][:1]


def reviewkd(student: Network, teacher: Network, setting: Setting, *, weight: float = 5.0, warm_up: float = 1 / 12,
             student_before_activation: bool = False) -> Method:
    """CE + weight * min(1, progress / warm_up) * sum over levels of HCL(fused student level, teacher level).

    The teacher is tapped before the activations, and at its pooled feature, in whose place segmentation has what the
    heads' pyramids give, where both networks have such, and depth nothing. Levels are the
    stages that pair.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        weight: Of each level. The authors': 5 for WRN-40-2 -> WRN-16-2 or ShuffleV1 and 32x4 -> 8x4, 8 for ShuffleV2,
            0.6 for ResNet-56 -> 20, 1 for ResNet-110 -> 32 and for ImageNet's ResNet-34 -> 18.
        warm_up: Part of the run over which the weight rises; the authors' 20 of 240 epochs. They raise it once an
            epoch, from 0; here it rises with every step. 0 for none.
        student_before_activation: Tap the student before the activations too, as on ImageNet.

    Source: Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, arXiv:2104.09044. The authors' CIFAR
    script leaves the teacher in train mode; here it is in eval mode.
    """
    suffix, pairs = ".pre" if student_before_activation else "", paired(student, teacher)
    after = deepest(student, teacher)
    own = [*(stage + suffix for stage, _ in pairs), *after]
    sources = [*(f"{stage}.pre" for _, stage in pairs), *after]
    names = [f"level{i}" for i in range(1, len(own) + 1)]
    pull = ramp(weight, over=warm_up)
    return Method(
        members={"student": student, "review": Review(student, own, [teacher.shape(tap) for tap in sources], names)},
        frozen={"teacher": teacher},
        terms={
            "ce": Supervise("student", setting.task),
            **{name: Match(f"review.{name}", f"teacher.{tap}", hcl, connect_source=AsMap())
               for name, tap in zip(names, sources, strict=True)},
        },
        process=Scheduled({"ce": 1.0, **dict.fromkeys(names, pull)}),
    )
