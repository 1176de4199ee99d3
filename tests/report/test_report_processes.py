"""The picture of a search: areas with the recorded weights, a panel a teacher tap, and what a replay leaves out."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from limbeck.process import biased_softmax
from limbeck.process.recorded import Recorded
from limbeck.report.plots import process

PAPER27 = tuple(f"t{t}>s{s}/{kind}" for t in (1, 2, 3) for s in (1, 2, 3) for kind in ("c2", "c3", "complex"))


def recorded(names, raw=None, rows=5):
    """Raw weights that move by hand: term i goes from 1 to 1 + i / 10."""
    if raw is None:
        raw = 1 + torch.linspace(0, 1, rows)[:, None] * torch.arange(len(names)) / 10
    return Recorded(tuple(names), raw, biased_softmax(raw), "biased-softmax", float(len(names)))


def titles(figure):
    return [axes.get_title("left") for axes in figure.axes]


def tops(axes):
    """The upper edge at the last point of every full area."""
    return [max(y for path in area.get_paths() for x, y in path.vertices if x == 1) for area in axes.collections[::2]]


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("narrow", [False, True])
def test_a_panel_a_teacher_tap_an_overview_and_the_share(narrow):
    figure = drawn(process(recorded(PAPER27), narrow=narrow))
    assert titles(figure) == ["Total weight of each teacher tap", "Teacher stage 1", "Teacher stage 2",
                              "Teacher stage 3", "Computed in a replay: 100 % of all pathways"]


def legend(figure):
    """What the panels' legend says; the overview, where there is one, has its own."""
    (found,) = [axes.get_legend() for axes in figure.axes[len(figure.axes) > 2:] if axes.get_legend()]
    return found


def labels(figure):
    return [text.get_text() for text in legend(figure).get_texts()]


def test_areas_add_up_to_the_recorded_weights():
    found = recorded(PAPER27)
    figure = process(found)
    for tap in range(3):
        own = found.weights[-1, 9 * tap:9 * tap + 9]
        np.testing.assert_allclose(tops(figure.axes[1 + tap]), own.cumsum(0), rtol=1e-5)
    total = next(line for line in figure.axes[0].get_lines() if line.get_label() == "total strength")
    np.testing.assert_allclose(total.get_ydata(), found.weights.sum(1), rtol=1e-5)


def test_panels_share_an_axis_that_holds_all():
    figure = drawn(process(recorded(PAPER27)))
    limits = {axes.get_ylim() for axes in figure.axes[1:4]}
    assert len(limits) == 1
    assert limits.pop()[1] >= max(top for axes in figure.axes[1:4] for top in tops(axes))


def test_the_legend_names_every_kind_of_pathway_once():
    kinds = [f"student stage {s}, {kind}" for s in (1, 2, 3) for kind in ("c2", "c3", "complex")]
    assert labels(process(recorded(PAPER27))) == kinds[::-1]


def test_clipped_terms_are_faint_and_counted():
    raw = torch.tensor([[1.0, 1.0], [1.0, 0.5], [1.0, 0.2], [1.0, 0.1]])  # 0.5 itself is clipped: 5 of 8 are left
    figure = drawn(process(recorded(["t1>s1/c2", "t2>s1/c2"], raw)))
    overview, share = figure.axes[0], figure.axes[-1]
    assert share.get_title("left") == "Computed in a replay: 62 % of all pathways"
    np.testing.assert_allclose(share.get_lines()[0].get_ydata(), [1, 0.5, 0.5, 0.5])
    after = next(line for line in overview.get_lines() if line.get_label() == "after clipping")
    weights = biased_softmax(raw)
    np.testing.assert_allclose(after.get_ydata(), [weights[0].sum(), *weights[1:, 0]], rtol=1e-6)
    assert labels(figure) == ["student stage 1", "faint: raw weight ≤ 0.5"]


def test_without_a_threshold_nothing_is_clipped():
    raw = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    figure = drawn(process(recorded(["t1>s1/c2", "t2>s1/c2"], raw), threshold=None))
    assert titles(figure)[-1] == "Teacher stage 2"
    assert len(figure.axes[0].get_lines()) == 1


def test_other_names_share_one_panel():
    figure = drawn(process(recorded([f"level{i}" for i in range(1, 5)])))
    assert titles(figure) == ["Weights", "Computed in a replay: 100 % of all terms"]
    assert labels(figure) == ["level4", "level3", "level2", "level1"]


def test_of_many_other_names_the_strongest_are_told():
    figure = drawn(process(recorded([f"feature{i}" for i in range(27)])))
    assert labels(figure) == [*(f"feature{i}" for i in range(26, 18, -1)), "19 weaker ones"]
    assert len(tops(figure.axes[0])) == 27


def test_stems_pooled_features_and_other_terms_beside_pathways():
    figure = drawn(process(recorded(["t0>s0/complex", "t0>s1/complex", "tpooled>spooled/complex", "kl"])))
    assert titles(figure)[1:4] == ["Teacher stem", "Teacher pooled", "Other terms"]
    assert labels(figure) == ["kl", "student pooled", "student stage 1", "student stem"]
    assert len({handle.get_facecolor() for handle in legend(figure).get_patches()}) == 4


@pytest.mark.parametrize("rows", [1, 2, 5000])
def test_a_search_of_any_length(rows):
    figure = drawn(process(recorded(PAPER27, rows=rows)))
    x, y = figure.axes[0].get_lines()[0].get_data()
    assert 2 <= len(x) <= 200
    assert (x[0], x[-1]) == (0, 1)
    assert np.isfinite(y).all()
