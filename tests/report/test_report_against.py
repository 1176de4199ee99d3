"""Rows beside a chosen method: the difference, Welch's test worked out by hand, and who is compared with whom."""

import csv
import io

import pytest

from limbeck.errors import Mistake
from limbeck.report import against, as_csv, as_latex, as_markdown, rows
from limbeck.report.grouping import Comparison
from limbeck.report.tables import cells
from limbeck.runs import runs_in


def scored(last):
    return {"verb": "distill", "test": {"last": {"top1": last}, "peak": {"top1": last}}}


@pytest.fixture
def two(make):
    """kd at 1, 2, 3, 4 above 90 and at at 3, 5, 6, 7, 9: means 2.5 and 6, variances 5/3 and 5."""
    return [make(f"{method}{seed}", method=method, seed=seed, result=scored(90.0 + last))
            for method, scores in (("kd", (1, 2, 3, 4)), ("at", (3, 5, 6, 7, 9))) for seed, last in enumerate(scores)]


def test_welch_by_hand(two):
    """t = 3.5 / sqrt(5/12 + 1) = 2.9406, 6.5134 degrees of freedom: p = 0.0238, two-sided."""
    kd, at = against(rows(two), "kd")
    assert kd.compared is None
    assert at.compared.difference == pytest.approx(3.5)
    assert at.compared.p == pytest.approx(_two_sided(3.5 / (5 / 12 + 1) ** 0.5, (5 / 12 + 1) ** 2 / (
        (5 / 12) ** 2 / 3 + 1 / 4)), rel=1e-4)
    assert at.compared.counts == (5, 4)
    assert str(at.compared) == "+3.50, p = 0.024 (n = 5, 4)"


def _two_sided(t, freedom):
    """Twice the tail of Student's distribution, by Simpson's rule on its density."""
    from math import exp, lgamma, pi

    scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / (freedom * pi) ** 0.5
    points, width = 20000, t / 20000
    heights = [scale * (1 + (i * width) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(points + 1)]
    inside = width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
    return 1 - 2 * inside


def test_one_run_has_a_difference_and_no_p(make):
    table = against(rows([make("kd", result=scored(90.0)), make("at", method="at", result=scored(90.5))]), "kd")
    assert str(table[1].compared) == "+0.50 (n = 1, 1)"


def test_no_spread_has_no_p(make):
    folders = [make(f"{method}{seed}", method=method, seed=seed, result=scored(last))
               for method, last in (("kd", 90.0), ("at", 80.0)) for seed in (0, 1)]
    assert against(rows(folders), "kd")[1].compared == Comparison("kd", -10.0, None, (2, 2))


def test_small_numbers_are_told(make):
    assert str(Comparison("kd", 0.0012, 1e-7, (5, 5))) == "+0.0012, p < 0.001 (n = 5, 5)"


def test_pairs_and_lengths_are_compared_apart(make):
    settings = {"short": {"epochs": 6}, "long": {"epochs": 12}, "wide": {"student": "resnet32"}}
    folders = [make(f"{method}-{name}", method=method, result=scored(score + i), **more)
               for method, score in (("kd", 80.0), ("at", 81.0)) for i, (name, more) in enumerate(settings.items())]
    table = against(rows(folders), "kd")
    assert [row.compared.difference for row in table if row.what == "at"] == [1.0, 1.0, 1.0]


def test_a_student_alone_is_compared_where_there_is_one_such_row(make):
    alone = make("alone", method="none", verb="train", teacher=None, result=scored(80.0))
    kd = make("kd", result=scored(82.0))
    assert against(rows([alone, kd]), "kd")[0].compared.difference == -2.0
    other = make("other", teacher="resnet110", result=scored(83.0))
    assert against(rows([alone, kd, other]), "kd")[0].compared is None


def test_a_method_that_is_not_there_is_told(two):
    with pytest.raises(Mistake, match=r"--against takes a method of the table; got 'kdd'; closest: \['kd'\]"):
        against(rows(two), "kdd")


def test_it_is_a_column_of_every_form(two):
    table = against(rows(two), "kd")
    headers, lines = cells(table)
    assert headers[-1] == "against kd"
    assert [line[-1] for line in lines] == ["", "+3.50, p = 0.024 (n = 5, 4)"]
    assert "against kd" in as_markdown(table)
    assert "against kd" in as_latex(table)
    first, second = csv.DictReader(io.StringIO(as_csv(table)))
    assert (first["against"], first["p"]) == ("", "")
    assert (second["against"], float(second["difference"]), second["against_runs"]) == ("kd", 3.5, "4")


def test_without_it_there_is_no_column(two):
    assert "against" not in " ".join(cells(rows(two))[0])


def test_runs_are_found_below_a_sweeps_folder(make, tmp_path):
    inside = [make("kd/pair/0"), make("kd/pair/1"), make("teachers/large")]
    make("kd/pair/0/search", verb="search", method="distpro")
    assert runs_in(tmp_path) == inside
    assert runs_in(inside[0]) == [inside[0]]
    assert runs_in(tmp_path / "nowhere") == []
