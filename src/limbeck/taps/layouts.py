"""How a tensor holds places and channels, found from its shape, and how it is read as a map, as tokens or as one token.

Networks keep their features in one of three layouts: maps (N, C, H, W), maps with channels last (N, H, W, C), tokens
(N, T, C). Among tokens those of the patches come last; class, distillation and register tokens stand before them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from limbeck.errors import Mistake
from limbeck.taps.calls import Call

Grid = tuple[int, int]
Kind = Literal["map", "last", "tokens"]

VIEWS = ("map", "tokens", "cls", "prefix")
"""What a tensor with places can be read as."""

_MOST_BEFORE = 32  # tokens before those of the patches; more are patches of another scale


@dataclass(frozen=True)
class Layout:
    """Where a tensor holds what.

    Attributes:
        kind: `map` (N, C, H, W), `last` (N, H, W, C) or `tokens` (N, T, C).
        grid: (H, W) of the places at the size of the trial pass.
        before: Tokens before those of the patches.
    """

    kind: Kind
    grid: Grid
    before: int = 0

    def read(self, x: Tensor, view: str) -> Tensor:
        """The tensor as something else; gradients flow through.

        Args:
            x: In this layout; at another image size than the trial's the grid has the same aspect.
            view: `map` (N, C, H, W), `tokens` (N, H * W, C) of the patches, `cls` (N, C): the first token before them,
                or `prefix` (N, P, C): all before them.

        Raises:
            Mistake: If it has no token before those of the patches and one is asked for.
        """
        if view in ("cls", "prefix"):
            if self.kind != "tokens" or not self.before:
                raise Mistake(f"a class token is asked for, and there is none in a tensor of shape {tuple(x.shape)}: "
                              f"all of it are places. Read it as map or tokens.")
            return x[:, 0] if view == "cls" else x[:, :self.before]
        if view == "map":
            return self._as_map(x)
        return x[:, self.before:] if self.kind == "tokens" else self._as_map(x).flatten(2).transpose(1, 2)

    def _as_map(self, x: Tensor) -> Tensor:
        if self.kind == "last":
            return x.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            return x[:, self.before:].transpose(1, 2).unflatten(2, self._grid_of(x.shape[1] - self.before))
        return x

    def _grid_of(self, places: int) -> Grid:
        height, width = self.grid
        if places == height * width:
            return self.grid
        rows = round(math.sqrt(places * height / width))
        return rows, places // rows


def layouts(calls: Sequence[Call], image: Grid) -> dict[str, Layout]:
    """The layout of every tensor with places in a pass, by its address; inputs too, as `PATH:in`.

    A map has the aspect of the image, on its last two axes or on the two before the last. Where both would do, modules
    of the same class decide, by what they return elsewhere. The grid of tokens is the largest that an earlier map had
    (the patch embedding's) and that they fill; where none does, the largest with the image's aspect.

    Args:
        calls: In the order in which they ended.
        image: (H, W) of the images.
    """
    found: dict[str, Layout] = {}
    votes = _votes(calls, image)
    grids: set[Grid] = set()
    for call in calls:
        for address, shape in ((call.address, call.shape), (call.given_address, call.given_shape)):
            layout = _layout(shape, image, grids, votes.get(type(call.module)))
            if layout is not None:
                found[address] = layout
        own = found.get(call.address)
        if own is not None and own.kind != "tokens" and own.grid != (1, 1):
            grids.add(own.grid)
    return found


def _votes(calls: Sequence[Call], image: Grid) -> dict[type, Kind]:
    """What modules of each class return where there is no doubt."""
    counts: dict[type, Counter[Kind]] = {}
    for call in calls:
        kinds = _kinds(call.shape, image)
        if len(kinds) == 1:
            counts.setdefault(type(call.module), Counter())[kinds[0]] += 1
    return {kind: counter.most_common(1)[0][0] for kind, counter in counts.items()}


def _kinds(shape: Sequence[int], image: Grid) -> list[Kind]:
    """The layouts that a shape of four axes can have."""
    if len(shape) != 4 or shape[0] != 1:
        return []
    kinds: list[Kind] = ["map"] if _aspect(shape[2], shape[3], image) else []
    return [*kinds, "last"] if _aspect(shape[1], shape[2], image) else kinds


def _aspect(height: int, width: int, image: Grid) -> bool:
    """Whether a map covers the image: no larger, and of its aspect but for rounding."""
    return (height <= image[0] and width <= image[1]
            and abs(height * image[1] - width * image[0]) < max(image) + (image[0] != image[1]))


def _layout(shape: Sequence[int], image: Grid, grids: Iterable[Grid], vote: Kind | None) -> Layout | None:
    kinds = _kinds(shape, image)
    if kinds:
        kind = vote if vote in kinds and len(kinds) > 1 else kinds[0]
        return Layout(kind, (shape[2], shape[3]) if kind == "map" else (shape[1], shape[2]))
    if len(shape) != 3 or shape[0] != 1:
        return None
    tokens = shape[1]
    filled = [grid for grid in grids if 0 <= tokens - math.prod(grid) <= _MOST_BEFORE]
    grid = max(filled, key=math.prod) if filled else _largest(tokens, image)
    return None if grid is None else Layout("tokens", grid, tokens - math.prod(grid))


def _largest(tokens: int, image: Grid) -> Grid | None:
    """The largest grid of the image's aspect that so many tokens make."""
    for places in range(tokens, max(0, tokens - _MOST_BEFORE - 1), -1):
        rows = round(math.sqrt(places * image[0] / image[1]))
        if rows and places % rows == 0 and _aspect(rows, places // rows, image):
            return rows, places // rows
    return None
