"""The picture of how far a student's logits are from its teacher's, class by class (SLKD, Figure 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from limbeck.report.answers import Answers
from limbeck.report.look import panel_grid, styled, titled

_SCALE = 3.0
_MOST_NAMED = 20


def mean_logits(found: Answers) -> NDArray[np.float64]:
    """M, (C, C): row c is the mean logit vector of the images of class c; nan where there is none."""
    sums = np.zeros((len(found.classes), found.values.shape[1]))
    np.add.at(sums, found.targets, found.values)
    counts = np.bincount(found.targets, minlength=len(sums))[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def difference(student: Answers, teacher: Answers) -> NDArray[np.float64]:
    """|M_student - M_teacher| / 3, (C, C), with 0 on the diagonal; a class without images is nan throughout.

    Source: the notebook on correlations of mdistiller, which SLKD takes over; 3 is its common scale for all methods.
    """
    gap = np.abs(mean_logits(student) - mean_logits(teacher)) / _SCALE
    return gap * (1 - np.eye(len(gap)))


@styled
def correlations(panels: Mapping[str, tuple[Answers, Answers]]) -> Figure:
    """A panel for each run: `difference` from 0 to 1, with its largest entry and its mean under the title.

    Args:
        panels: Title -> logits of the student, and of its teacher, on the same images.
    """
    figure, axes = panel_grid(len(panels))
    images = [_draw(panel, title, *pair) for panel, (title, pair) in zip(axes, panels.items(), strict=True)]
    bar = figure.colorbar(images[0], ax=list(axes), shrink=0.8, extend="max")
    bar.set_label("|student − teacher| / 3", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def _draw(axes: Axes, title: str, student: Answers, teacher: Answers) -> AxesImage:
    matrix, names = difference(student, teacher), student.classes
    image = axes.imshow(matrix, cmap="PuBuGn", vmin=0, vmax=1, interpolation="nearest")
    titled(axes, title, f"max {np.nanmax(matrix):.3f}, mean {np.nanmean(matrix):.4f}")
    axes.set(xlabel="logit of class", ylabel="images of class")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if len(names) <= _MOST_NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
    return image
