"""Parts of methods that learn together: fusing maps of several students, and carrying deep maps to shallow stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from limbeck.connectors import AsMap, Resize, as_map, regression
from limbeck.losses import diversity_feature
from limbeck.members import Member, lend
from limbeck.seen import Outputs, Seen
from limbeck.terms import full

MapShape = tuple[int, int, int]


def depthwise(inputs: int, outputs: int) -> nn.Sequential:
    """Depth-wise 3 x 3 and 1 x 1 convolution, each with norm and ReLU; weights from N(0, 2 / (k^2 outputs))."""
    wide = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    narrow = nn.Conv2d(inputs, outputs, 1, bias=False)
    for convolution, kernel in ((wide, 3), (narrow, 1)):
        nn.init.normal_(convolution.weight, std=math.sqrt(2 / (kernel * kernel * convolution.out_channels)))
    return nn.Sequential(wide, nn.BatchNorm2d(inputs), nn.ReLU(), narrow, nn.BatchNorm2d(outputs), nn.ReLU())


class Fusion(Member):
    """Fuses students' last maps into one, and classifies it.

    Args:
        reads: Addresses of the maps.
        shapes: (C, H, W) of each; maps of another shape than the first one's are brought to that by `regression`.
        classes: Logits.
        detach: Whether the students feel nothing of it (FFSD) or are pulled as well (FFL).
    """

    answers = True

    def __init__(self, reads: Sequence[str], shapes: Sequence[MapShape], classes: int, *, detach: bool = True):
        super().__init__()
        self.reads, self.detach, channels = tuple(reads), detach, shapes[0][0]
        self.equal = nn.ModuleList(AsMap() if shape == shapes[0] else regression(shape, shapes[0]) for shape in shapes)
        self.fuse = depthwise(len(reads) * channels, channels)
        self.classify = nn.Linear(channels, classes)

    def forward(self, seen: Seen) -> Outputs:
        maps = [seen.detached(address) if self.detach else seen[address] for address in self.reads]
        fused = self.fuse(torch.cat([equal(x) for equal, x in zip(self.equal, maps, strict=True)], dim=1))
        return {"features": fused, "logits": self.classify(fused.mean((2, 3)))}


class Decoder(Member):
    """Reconstructs the students' concatenated maps from the leader's last one; its gradient reaches the leader.

    Args:
        read: Address of the leader's last map.
        channels: Of that map.
        students: How many maps it reconstructs.
    """

    def __init__(self, read: str, channels: int, students: int):
        super().__init__()
        self.reads = (read,)
        self.decode = depthwise(channels, students * channels)

    def forward(self, seen: Seen) -> Outputs:
        return {"maps": self.decode(as_map(seen[self.reads[0]]))}


class Carrier(Member):
    """The self-distillation module: turns a deep map into pseudo maps of the shallower stages, one after the other.

    Args:
        read: Address of the deep map; it feels nothing.
        stages: Names of the network's stages, shallow first.
        shapes: Their (C, H, W).
    """

    def __init__(self, read: str, stages: Sequence[str], shapes: Sequence[MapShape]):
        super().__init__()
        self.reads, self.stages = (read,), tuple(stages[:-1])
        self.blocks = nn.ModuleList(_upwards(deep, shallow) for shallow, deep in pairwise(shapes))

    def forward(self, seen: Seen) -> Outputs:
        return self.carry(as_map(seen.detached(self.reads[0])))

    def carry(self, deep: Tensor) -> Outputs:
        """Pseudo maps by stage, from a deep map (N, C, H, W)."""
        maps: Outputs = {}
        for stage, block in reversed(list(zip(self.stages, self.blocks, strict=True))):
            maps[stage] = deep = block(deep)
        return maps


def _upwards(deep: MapShape, shallow: MapShape) -> nn.Sequential:
    """Transposed convolution that doubles the map, norm, ReLU; then a resize where stages are not 2 apart."""
    up = nn.ConvTranspose2d(deep[0], shallow[0], 3, stride=2, padding=1, output_padding=1, bias=False)
    doubled = (2 * deep[1], 2 * deep[2]) == shallow[1:]
    return nn.Sequential(up, nn.BatchNorm2d(shallow[0]), nn.ReLU(), *([] if doubled else [Resize(shallow[1:])]))


class Carried(Member):
    """What a carrier, lent in eval mode, makes of somebody's deep map: a target, which nobody feels.

    Args:
        carrier: Stays whose it is.
        read: Address of the deep map.
        diverse: First turn the map into the diversity target, which asks for attention elsewhere.
    """

    carrier: Carrier

    def __init__(self, carrier: Carrier, read: str, *, diverse: bool):
        super().__init__()
        self.__dict__["carrier"] = carrier
        self.reads, self.diverse = (read,), diverse

    def forward(self, seen: Seen) -> Outputs:
        deep = as_map(seen.detached(self.reads[0]))
        return lend(_Carry(self.carrier), diversity_feature(full(deep)) if self.diverse else deep)


class _Carry(nn.Module):
    """A carrier's `carry` as a module, to be lent."""

    def __init__(self, carrier: Carrier):
        super().__init__()
        self.carrier = carrier

    def forward(self, deep: Tensor) -> Outputs:
        return self.carrier.carry(deep)
