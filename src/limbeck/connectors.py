"""What makes two representations comparable: views of vectors and tokens as maps, projections, regressors.

A shape here is a tap's without the batch: (C, H, W) of a map, (T, C) of tokens, (C,) of a vector.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses.sizes import average_pool

Shape = tuple[int, ...]


def as_map(x: Tensor) -> Tensor:
    """Any representation as a map (N, C, H, W).

    Args:
        x: A map as it is; tokens (N, T, C), of which the last h * h, h = floor(sqrt(T)), make an h x h grid and what
            stands before (class and distillation tokens) is left out; a vector (N, C) as a 1 x 1 map.
    """
    if x.ndim == 2:
        return x[:, :, None, None]
    if x.ndim == 3:
        side = math.isqrt(x.shape[1])
        return x[:, x.shape[1] - side * side:].transpose(1, 2).unflatten(2, (side, side))
    return x


def map_shape(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) that `as_map` gives a tap of this shape."""
    channels, height, width = as_map(torch.empty(1, *shape, device="meta")).shape[1:]
    return channels, height, width


class AsMap(nn.Module):
    """`as_map` as a connector."""

    def forward(self, x: Tensor) -> Tensor:
        return as_map(x)


class Each(nn.Module):
    """A connector for each of several layers that a distance compares together.

    Args:
        connectors: One for each layer, in order.
    """

    def __init__(self, *connectors: nn.Module):
        super().__init__()
        self.connectors = nn.ModuleList(connectors)

    def forward(self, *layers: Tensor) -> tuple[Tensor, ...]:
        return tuple(connector(x) for connector, x in zip(self.connectors, layers, strict=True))


class Resize(nn.Module):
    """Nearest-neighbour resizing of a map, down as well as up; to 1 x 1 by the mean over positions.

    Nearest to 1 x 1 would keep the top left position alone.

    Args:
        size: (H, W) of the result.
        average: Shrink by the mean over cells instead; what is to grow still does so by nearest neighbours.
    """

    def __init__(self, size: tuple[int, int], *, average: bool = False):
        super().__init__()
        self.size, self.average = size, average

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == self.size:
            return x
        if self.average or self.size == (1, 1):
            x = average_pool(x, (min(x.shape[2], self.size[0]), min(x.shape[3], self.size[1])))
        return F.interpolate(x, self.size, mode="nearest")


def convolution(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Convolution without bias, drawn from N(0, 2 / (k^2 outputs)), and batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / (kernel * kernel * outputs)))
    return [convolution, nn.BatchNorm2d(outputs)]


def regression(student: Shape, teacher: Shape, *, activation: bool = True) -> nn.Module:
    """One convolution, batch norm and a ReLU that turn the student's representation into a map like the teacher's.

    To a map of the same size the convolution is 1 x 1; to one of half the size 3 x 3 with stride 2; to one of twice the
    size a transposed 4 x 4 with stride 2. To any other size it is 1 x 1, and the map is then resized: by the mean over
    cells where it shrinks, by nearest neighbours where it grows.

    Args:
        student: The student tap's shape.
        teacher: The teacher tap's shape.
        activation: Whether it ends in the ReLU.

    Returns:
        A module from the student's tap to (N, C_teacher, H_teacher, W_teacher).

    Source: `ConvReg` of RepDistiller, which FitNet and AB use there. For other ratios of sizes it has convolutions as
    large as the difference of sizes (43 x 43 from 56 to 14), and none that let a map grow.
    """
    (inputs, *own), (outputs, *wanted) = map_shape(student), map_shape(teacher)
    if own == [2 * side for side in wanted]:
        parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)]
    elif wanted == [2 * side for side in own]:
        parts = [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
    else:
        parts = [nn.Conv2d(inputs, outputs, 1), Resize((wanted[0], wanted[1]), average=True)]
    return nn.Sequential(AsMap(), *parts, nn.BatchNorm2d(outputs), *[nn.ReLU()] * activation)


def projection(student: Shape, teacher: Shape) -> nn.Module:
    """A 1 x 1 convolution and batch norm from the student's channels to the teacher's; the map keeps its size.

    Args:
        student: The student tap's shape.
        teacher: The teacher tap's shape.

    Source: the connectors of OFD's released code; weights drawn as there.
    """
    return nn.Sequential(AsMap(), *convolution(map_shape(student)[0], map_shape(teacher)[0], 1))
