"""Two small networks for the 8×8 digits of scikit-learn, shown as 3×8×8: they train in seconds on a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from limbeck.networks.convolutions import conv3x3, he_normal
from limbeck.networks.staged import Staged, head, name_taps


def step(width_in: int, width: int, *, stride: int) -> nn.Sequential:
    """A 3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(OrderedDict(conv=conv3x3(width_in, width, stride=stride), bn=nn.BatchNorm2d(width),
                                     relu=nn.ReLU()))


def plain(widths: Sequence[int], num_classes: int) -> Staged:
    """A stem and three stages of one convolution each, strides 1, 2, 2; `widths` of the stem and the stages."""
    stem, w1, w2, w3 = widths
    stages = ("stage1", "stage2", "stage3")
    norms = [f"{stage}.bn" for stage in stages]
    network = Staged(
        {
            "stem": step(3, stem, stride=1),
            "stage1": step(stem, w1, stride=1),
            "stage2": step(w1, w2, stride=2),
            "stage3": step(w2, w3, stride=2),
            **head("fc", nn.Linear(w3, num_classes)),
        },
        taps=name_taps(stem="stem", stages=stages, before=norms, classifier="fc"),
        norm_before_relu=norms,
    )
    he_normal(network)
    return network


def digits_large(num_classes: int = 100) -> Staged:
    """The teacher: stages 32, 64, 128 wide, 104,042 parameters for 10 classes."""
    return plain((32, 32, 64, 128), num_classes)


def digits_small(num_classes: int = 100) -> Staged:
    """The student: stages 8, 12, 16 wide, 3,642 parameters for 10 classes."""
    return plain((8, 8, 12, 16), num_classes)
