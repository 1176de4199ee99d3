"""Pictures of runs: the numbers that are drawn, the panels, and what is said beside them."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from limbeck.report import Outcome, plots, rows
from limbeck.runs import Run


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines() if not line.get_label().startswith("_")}


def measured(folder, key):
    return [record[key] for record in Run(folder).records() if record["kind"] == "test"]


def drawn(figure):
    """Draw it for real: layout warnings are errors here."""
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("narrow", [False, True])
def test_curves_are_means_over_seeds(make, narrow):
    a, b = make("a", seed=0, epochs=4), make("b", seed=1, epochs=4)
    other = make("other", method="none", teacher=None, epochs=6)
    figure = drawn(plots.curves(rows([a, b, other]), narrow=narrow))
    score, loss = figure.axes
    assert (score.get_title("left"), loss.get_title("left")) == ("Test top-1", "Test cross-entropy")
    assert set(lines(score)) == {"kd", "none"}
    np.testing.assert_allclose(lines(score)["kd"][:, 1], np.mean([measured(a, "top1"), measured(b, "top1")], axis=0))
    np.testing.assert_allclose(lines(score)["none"][:, 1], measured(other, "top1"))
    np.testing.assert_allclose(lines(loss)["none"], np.stack([range(1, 7), measured(other, "cross_entropy")], axis=1))


def test_the_legend_is_ranked_and_has_the_numbers(make):
    finished = [make("a", final=90.0), make("b", method="at", final=93.0)]
    (legend,) = drawn(plots.curves(rows([*finished, make("c", method="dkd", final=88.0, done=3)]))).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == ["93.00  at", "90.00  kd"]
    assert texts[2].endswith("dkd, so far")


def test_the_axes_hold_the_second_half_of_finished_runs(make):
    a, half = make("a", epochs=20), make("half", method="at", epochs=20, done=2)
    low, high = plots.curves(rows([a, half])).axes[0].get_ylim()
    late = measured(a, "top1")[9:]
    assert low < min(late) < max(late) < high
    assert low > measured(half, "top1")[-1]


def test_scores(make):
    folders = [make(f"kd{final}", seed=final, final=float(final), recipe={"paper": 96.5}) for final in (95, 97)]
    figure = drawn(plots.scores(rows([*folders, make("half", method="at", done=2)])))
    (axes,) = figure.axes
    dots, bar, paper = axes.get_lines()
    np.testing.assert_allclose(dots.get_xdata(), [95.0, 97.0])
    np.testing.assert_allclose(bar.get_xdata(), [96.0, 96.0])
    np.testing.assert_allclose(paper.get_xdata(), [96.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kd"]
    assert [text.get_text() for text in axes.texts] == ["96.00 ± 1.41"]


def test_searches_are_left_out_beside_others(make):
    search, run = make("search", method="distpro", verb="search", final=40.0), make("run", method="distpro", final=95.0)
    table = rows([search, run])
    assert set(lines(drawn(plots.curves(table)).axes[0])) == {"distpro"}
    assert [label.get_text() for label in drawn(plots.scores(table)).axes[0].get_yticklabels()] == ["distpro"]
    assert set(lines(plots.curves(rows([search])).axes[0])) == {"search"}


def test_a_row_has_one_colour_in_all_pictures(make):
    table = rows([make("half", method="at", done=3), make("run")])
    (curve,) = [line for line in plots.curves(table).axes[0].get_lines() if line.get_label() == "kd"]
    assert plots.scores(table).axes[0].get_lines()[1].get_color() == curve.get_color()


def test_losses_of_few_terms_have_a_panel_each(make):
    run = Outcome.read(make("run", method="reviewkd", epochs=5))
    figure = drawn(plots.losses(run))
    assert [axes.get_title("left") for axes in figure.axes] == ["ce", "level1", "level2", "level3", "level4"]
    (line,) = figure.axes[2].get_lines()
    np.testing.assert_allclose(line.get_ydata(), [r["losses"]["level2"] for r in run.records if r["kind"] == "train"])


@pytest.mark.parametrize("narrow", [False, True])
def test_pathways_of_a_pair_share_a_panel(make, narrow):
    figure = drawn(plots.losses(Outcome.read(make("run", method="distpro", epochs=10)), narrow=narrow))
    pairs = [f"t{t}>s{s}" for t in (1, 2, 3) for s in (1, 2, 3)]
    assert [axes.get_title("left") for axes in figure.axes] == ["ce", *pairs]
    assert list(lines(figure.axes[1])) == ["c2", "c3", "complex"]
    assert {axes.get_xlim() for axes in figure.axes} == {(0, 10)}
    np.testing.assert_array_equal(np.isnan(lines(figure.axes[1])["c2"][:, 1]), [epoch > 6 for epoch in range(1, 11)])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["c2", "c3", "complex"]


def test_stages_are_parted(make):
    figure = drawn(plots.losses(Outcome.read(make("run", stages={"hints": 2, "kd": 3}))))
    assert [text.get_text() for text in figure.axes[0].texts] == ["kd"]
    np.testing.assert_allclose(figure.axes[0].get_lines()[1].get_xdata(), [2, 2])


def test_rates(make):
    run = Outcome.read(make("run", epochs=8))
    rate, speed = drawn(plots.rates(run)).axes
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), run.curve("train", "lr")[1])
    np.testing.assert_allclose(speed.get_lines()[0].get_ydata(), run.curve("train", "images_per_second")[1])


@pytest.mark.parametrize("draw", [plots.losses, plots.rates])
def test_a_run_without_metrics_has_a_picture_that_says_so(make, draw):
    figure = drawn(draw(Outcome.read(make("new", done=0))))
    assert figure.texts[0].get_text() == "no epoch is finished yet"


def test_rows_without_metrics_can_be_drawn(make):
    table = rows([make("new", done=0)])
    drawn(plots.curves(table))
    assert drawn(plots.scores(table)).texts[0].get_text() == "nothing is scored yet"


def test_a_new_run_beside_an_old_one(make):
    figure = drawn(plots.curves(rows([make("new", done=0), make("old", method="at")])))
    assert len(figure.legends[0].get_texts()) == 1


def test_twenty_rows_look_different(make):
    table = rows([make(f"m{i}", method=f"method{i}", epochs=3) for i in range(20)])
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn(plots.curves(table)).axes[0].get_lines()}
    assert len(styles) == 20


def test_nobody_else_s_style_is_changed(make):
    before = dict(matplotlib.rcParams)
    plots.rates(Outcome.read(make("run")))
    assert dict(matplotlib.rcParams) == before
