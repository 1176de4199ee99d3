"""DistPro's transforms: what turns a student's representation into one like the teacher's, of maps and of tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.connectors import AsMap, Resize, Shape, convolution, map_shape
from limbeck.errors import Mistake, nearest

Map = tuple[int, int, int]
"""(C, H, W)"""


class Gate(nn.Module):
    """Self-attention of DistPro's Figure 4b: the map times a one-channel map computed from it, without squashing.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class OverChannels(nn.LayerNorm):
    """Layer norm over the channels of a map at each place, as of each token (N, C, H, W).

    Args:
        channels: C of the map.
        learned: Whether it has a scale and a shift.
    """

    def __init__(self, channels: int, *, learned: bool = True):
        super().__init__(channels, elementwise_affine=learned)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class Around(nn.Module):
    """A map and a 3 x 3 convolution of each of its channels, added: what a token hears of those around it.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x)


def _c1(own: Map, wanted: Map, middle: int) -> list[nn.Module]:
    return [*convolution(own[0], wanted[0], 1), Resize(wanted[1:])]


def _c2(own: Map, wanted: Map, middle: int) -> list[nn.Module]:
    return [*convolution(own[0], middle, 1), Gate(middle), Resize(wanted[1:]), *convolution(middle, wanted[0], 3)]


def _c3(own: Map, wanted: Map, middle: int) -> list[nn.Module]:
    return [*convolution(own[0], middle, 1), Gate(middle), Resize(wanted[1:]), *convolution(middle, middle, 3),
            *convolution(middle, wanted[0], 3)]


def _complex(own: Map, wanted: Map, middle: int) -> list[nn.Module]:
    return [*convolution(own[0], middle, 3), nn.ReLU(), Gate(middle), *convolution(middle, middle, 3), nn.ReLU(),
            Resize(wanted[1:]), *convolution(middle, wanted[0], 3)]


def _tokens(own: Map, wanted: Map, middle: int) -> list[nn.Module]:
    """Layers of a transformer's tokens; linear ones stand as convolutions of one place.

    One token has nothing around it. It is taught to a grid by standing at every place; a grid to one token by the mean
    over its places.
    """
    first: list[nn.Module] = [OverChannels(own[0]), nn.Conv2d(own[0], middle, 1), nn.GELU()]
    last = nn.Conv2d(middle, wanted[0], 1)
    if (1, 1) in (own[1:], wanted[1:]):
        return [Resize((1, 1)), *first, last, Resize(wanted[1:])]
    return [*first, Gate(middle), Around(middle), Resize(wanted[1:]), last]


TRANSFORMS: dict[str, Callable[[Map, Map, int], list[nn.Module]]] = {
    "c1": _c1, "c2": _c2, "c3": _c3, "complex": _complex, "tokens": _tokens}
"""DistPro's transform blocks, by the names of specs/distpro.md section 4; `tokens` is of vision transformers."""


def transform(kind: str, student: Shape, teacher: Shape) -> nn.Module:
    """A block that turns the student's representation into a map like the teacher's.

    Args:
        kind: A key of `TRANSFORMS`.
        student: The student tap's shape.
        teacher: The teacher tap's shape.

    Returns:
        A module from the student's tap to (N, C_teacher, H_teacher, W_teacher); its middle width is
        min(512, C_teacher, C_student).

    Raises:
        Mistake: If there is no such kind.

    Source: the released DistPro code's four builders of convolutions; weights drawn as there. The paper's transform of
    tokens is not published; `tokens` is layer norm, a linear layer, GELU, a gate, a depth-wise 3 x 3 convolution beside
    the tokens, and a linear layer; without gate and convolution where a single token is taught or teaches.
    """
    if kind not in TRANSFORMS:
        raise Mistake(f"there is no transform '{kind}'; {nearest(kind, TRANSFORMS)}")
    own, wanted = map_shape(student), map_shape(teacher)
    return nn.Sequential(AsMap(), *TRANSFORMS[kind](own, wanted, min(512, wanted[0], own[0])))


def as_target(teacher: Shape, *, tokens: bool) -> nn.Module:
    """The teacher's representation as transforms are held against it: a map.

    Args:
        teacher: The teacher tap's shape.
        tokens: Whether its places are tokens of a transformer, some of whose channels are much larger than the rest:
            each is brought to mean 0 and variance 1 over its channels.
    """
    return nn.Sequential(AsMap(), *[OverChannels(map_shape(teacher)[0], learned=False)] * tokens)
