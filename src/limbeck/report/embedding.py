"""The picture of a network's features: every test image a dot, alike ones near each other (SLKD, Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from limbeck.report.answers import Answers
from limbeck.report.look import INK, PAPER, bare, class_colors, panel_grid, styled, titled

_MOST_NAMED = 20


def embedded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, F) in a plane, (N, 2): t-SNE with scikit-learn's defaults; for few images a smaller perplexity."""
    from sklearn.manifold import TSNE

    made = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=0)
    plane: NDArray[np.float32] = made.fit_transform(features)
    return plane


@styled
def features(panels: Mapping[str, Answers]) -> Figure:
    """A panel for each network, with t-SNE of its features coloured by class; up to 20 classes are named.

    Args:
        panels: Title -> pooled features.
    """
    figure, axes = panel_grid(len(panels))
    for panel, (title, found) in zip(axes, panels.items(), strict=True):
        _draw(panel, embedded(found.values), found)
        titled(panel, title, f"t-SNE of {found.values.shape[1]} pooled features, {len(found.values):,} test images")
    return figure


def _draw(axes: Axes, places: NDArray[np.float32], found: Answers) -> None:
    colors = np.array(class_colors(len(found.classes)))
    order = np.random.default_rng(0).permutation(len(places))  # no class lies on top of all others
    size = float(np.clip(20000 / len(places), 3, 22))
    axes.scatter(places[order, 0], places[order, 1], s=size, c=colors[found.targets[order]], alpha=0.75, linewidths=0)
    bare(axes)
    axes.set_aspect("equal", adjustable="datalim")
    if len(found.classes) > _MOST_NAMED:
        return
    for number, name in enumerate(found.classes):
        own = places[found.targets == number]
        if len(own):
            axes.annotate(name, np.median(own, axis=0), ha="center", va="center", fontsize=9, fontweight="bold",
                          color=INK, path_effects=[withStroke(linewidth=3, foreground=PAPER)])
