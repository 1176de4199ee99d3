"""Tables: exact numbers, who shares a row, and the text of every form."""

import csv
import io
import subprocess
import sys

import pytest

from limbeck.errors import Mistake
from limbeck.report import FORMS, Score, as_csv, as_latex, as_markdown, as_text, rows
from limbeck.report.grouping import names
from limbeck.report.tables import cells


def scored(last, peak=None, selected=None):
    test = {"last": {"top1": last}, "peak": {"top1": peak if peak is not None else last}}
    return {"verb": "distill", "test": test} | ({"select": {"best": 1.0, "test_at_best": selected}} if selected else {})


@pytest.fixture
def three(make):
    """Three seeds of kd at 95, 96 and 98: mean 289 / 3, variance ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 7 / 3."""
    recipe = {"paper": 97.1, "deviation": 0.2}
    return [make(f"kd{seed}", seed=seed, result=scored(last, last + 1, last - 0.5), recipe=recipe)
            for seed, last in enumerate((95.0, 96.0, 98.0))]


def test_mean_and_sample_deviation(three):
    (row,) = rows(three)
    assert row.last.mean == pytest.approx(289 / 3)
    assert row.last.deviation == pytest.approx((7 / 3) ** 0.5)
    assert (row.last.values, row.seeds) == ((95.0, 96.0, 98.0), (0, 1, 2))
    assert row.peak.mean == pytest.approx(292 / 3)
    assert row.best.mean == pytest.approx(287.5 / 3)
    assert row.paper == (97.1, 0.2)


def test_a_single_run_has_no_deviation():
    assert Score((95.0,)).deviation is None
    assert str(Score((95.0,))) == "95.00"


def test_small_numbers_have_four_decimals():
    assert str(Score((0.1972, 0.1974))) == "0.1973 ± 0.0001"


def test_cells(three, make):
    alone = make("alone", method="none", verb="train", teacher=None, result=scored(90.0))
    headers, lines = cells(rows([*three, alone]))
    assert headers == ["method", "teacher → student", "data", "epochs", "seeds", "test top-1", "best by selection",
                       "peak test", "paper"]
    assert lines == [
        ["kd", "resnet56 → resnet20", "digits", "12", "3",
         "96.33 ± 1.53", "95.83 ± 1.53", "97.33 ± 1.53", "97.10 ± 0.20"],
        ["none", "resnet20", "digits", "12", "1", "90.00", "", "90.00", ""]]


def test_columns_that_nobody_fills_are_left_out(make):
    headers, _ = cells(rows([make("kd", done=2)]))
    assert headers == ["method", "teacher → student", "data", "epochs", "seeds", "test top-1"]


def test_different_measures_have_a_column(make):
    dense = {"test": {"last": {"miou": 61.0}, "peak": {"miou": 62.0}}}
    headers, lines = cells(rows([make("kd", result=scored(90.0)), make("at", method="at", result=dense)]))
    assert headers[5:7] == ["measure", "test"]
    assert [line[5:7] for line in lines] == [["top-1", "90.00"], ["mIoU", "61.00"]]


# --- who shares a row


def test_a_row_a_setting(make):
    folders = [make(f"{method}{seed}", method=method, seed=seed) for method in ("kd", "reviewkd") for seed in (1, 0)]
    assert [(row.what, row.seeds) for row in rows(folders)] == [("kd", (0, 1)), ("reviewkd", (0, 1))]


def test_rows_that_would_look_the_same_say_what_differs(make):
    folders = [make(f"kd{t}", method={"name": "kd", "temperature": t}) for t in (1, 4)]
    assert [row.what for row in rows(folders)] == ["kd (temperature=1)", "kd (temperature=4)"]


def test_many_differences_are_counted(make):
    other = {"optimizer": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.0}, "training": {"batch_size": 8}}
    assert rows([make("a"), make("b", **other)])[1].what == "kd (lr=0.1, momentum=0.5, weight_decay=0.0 and 1 more)"


def test_where_a_recipe_comes_from_makes_no_row(make):
    assert len(rows([make("a", seed=0, recipe={"about": "here"}), make("b", seed=1, recipe={"about": "there"})])) == 1


def test_seeds_may_replay_processes_of_their_own(make):
    searches = [make(f"search{seed}", method="distpro", verb="search", seed=seed, epochs=2) for seed in (0, 1)]
    (row,) = rows([make(f"run{seed}", method="distpro", seed=seed, process={"file": str(search)})
                   for seed, search in enumerate(searches)])
    assert (row.what, row.seeds) == ("distpro", (0, 1))


def test_a_search_and_its_replay_are_rows_apart(make):
    search, run = make("search", method="distpro", verb="search"), make("run", method="distpro")
    assert [row.what for row in rows([search, run])] == ["search", "distpro"]


def test_a_paper_reports_nothing_of_searches(make):
    (row,) = rows([make("search", method="distpro", verb="search", recipe={"paper": 76.36})])
    assert row.paper is None


def test_unfinished_runs_do_not_count_beside_finished_ones(make):
    done, half = make("done", seed=0, result=scored(95.0)), make("half", seed=1, done=4)
    headers, (line,) = cells(rows([done, half]))
    assert (line[headers.index("epochs")], line[headers.index("seeds")]) == ("12", "1 of 2")
    assert line[headers.index("test top-1")] == "95.00"


def test_an_unfinished_row_says_so(make):
    headers, (line,) = cells(rows([make("half", done=4)]))
    assert line[headers.index("epochs")] == "4 of 12"
    assert line[headers.index("test top-1")]


def test_the_same_seed_twice_is_told(make):
    headers, (line,) = cells(rows([make("a"), make("b"), make("c", seed=1)]))
    assert line[headers.index("seeds")] == "2 in 3 runs"


def test_names_tell_rows_apart(make):
    teacher = make("teacher", method="none", verb="train", teacher=None, student="resnet56")
    student, kd = make("student", method="none", verb="train", teacher=None), make("kd")
    assert names(rows([teacher, student, kd])) == ["none, resnet56", "none, resnet20", "kd"]
    long = make("long", epochs=24)
    assert names(rows([kd, long])) == [f"kd, resnet56 → resnet20, digits, {epochs} epochs" for epochs in (12, 24)]


# --- forms


def test_text(three):
    lines = as_text(rows(three)).splitlines()
    assert " ".join(lines[0].split()) == ("method teacher → student data epochs seeds test top-1 best by selection "
                                          "peak test paper")
    assert "96.33 ± 1.53" in lines[2]
    assert len(lines) == 3


def test_markdown(make):
    folder = make("kd", method={"name": "kd", "note": "a|b"}, result=scored(95.0))
    other = make("other", result=scored(94.0))
    assert as_markdown(rows([folder, other])).splitlines() == [
        "| method | teacher → student | data | epochs | seeds | test top-1 | peak test |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        r"| kd (note=a\|b) | resnet56 → resnet20 | digits | 12 | 1 | 95.00 | 95.00 |",
        "| kd | resnet56 → resnet20 | digits | 12 | 1 | 94.00 | 94.00 |"]


def test_csv_has_every_number_in_full(three, make):
    first, second = csv.DictReader(io.StringIO(as_csv(rows([*three, make("half", method="at", done=0)]))))
    assert float(first["last_mean"]) == 289 / 3
    assert float(first["last_std"]) == pytest.approx((7 / 3) ** 0.5)
    assert (first["seeds"], first["runs"], first["paper"], first["paper_std"]) == ("0 1 2", "3", "97.1", "0.2")
    assert (second["method"], second["finished"], second["last_mean"], second["peak_std"]) == ("at", "False", "", "")


def test_latex(make):
    folder = make("run", student="vgg8_bn", result=scored(95.0))
    assert as_latex(rows([folder])).splitlines() == [
        r"\begin{tabular}{lllrrrr}", r"\toprule",
        r"method & teacher $\to$ student & data & epochs & seeds & test top-1 & peak test \\", r"\midrule",
        r"kd & resnet56 $\to$ vgg8\_bn & digits & 12 & 1 & 95.00 & 95.00 \\", r"\bottomrule", r"\end{tabular}"]


@pytest.mark.parametrize("form", FORMS)
def test_a_run_without_metrics_fits_every_form(make, form):
    assert "kd" in FORMS[form](rows([make("new", done=0)]))


def test_a_table_needs_runs(tmp_path):
    with pytest.raises(Mistake, match="needs folders of runs"):
        rows([tmp_path])


def test_tables_import_neither_torch_nor_matplotlib():
    look = "import sys, limbeck.report.tables; sys.exit(bool({'torch', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0
