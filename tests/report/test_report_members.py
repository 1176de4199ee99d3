"""Tables of groups: the mean of those who learn together, ensemble, fusion, leader, any right, each under its name."""

import csv
import io
import json
import re

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.report import as_csv, rows, with_members, write_page
from limbeck.report.members import scores_of
from limbeck.report.outcome import Outcome
from limbeck.report.tables import cells
from limbeck.report.together import members
from limbeck.runs import Run

DML = {"student": 70.0, "peer1": 72.0, "ensemble": 75.0, "any member right": 80.0}
FFSD = {"student1": 71.0, "student2": 72.0, "fusion": 76.0, "leader": 74.5, "ensemble": 75.5, "any member right": 81.0}


def grouped(make, name: str, scores: dict[str, float], together: list[str], *, seed: int = 0, add: float = 0.0):
    """A finished run whose members scored these."""
    deployed = scores.get("leader", scores.get("student", 0.0)) + add
    last = {"top1": deployed, "members": {who: {"top1": score + add} for who, score in scores.items()},
            "together": together}
    return make(f"{name}{seed}", method=name, teacher=None, seed=seed,
                result={"verb": "distill", "test": {"last": last, "peak": {"top1": deployed}}})


@pytest.fixture
def folders(make):
    alone = make("alone", method="none", verb="train", teacher=None, final=66.0)
    return [alone, grouped(make, "dml", DML, ["student", "peer1"]),
            *(grouped(make, "ffsd", FFSD, ["student1", "student2"], seed=s, add=2.0 * s) for s in (0, 1))]


def test_each_column_is_one_name_and_the_union_is_last(folders):
    headers, lines = cells(with_members(rows(folders)))
    place = headers.index("test top-1")
    assert headers[place:place + 6] == ["test top-1", "mean of members", "ensemble", "fusion", "leader",
                                        "any member right"]
    assert lines[0][place + 1:place + 6] == [""] * 5
    assert lines[1][place:place + 6] == ["70.00", "71.00", "75.00", "", "", "80.00"]
    assert lines[2][place + 1:place + 4] == ["72.50 ± 1.41", "76.50 ± 1.41", "77.00 ± 1.41"]


def test_without_asking_there_are_no_such_columns(folders):
    assert "ensemble" not in cells(rows(folders))[0]


def test_each_of_those_who_learn_together_may_be_asked_for(folders):
    run = Outcome.read(folders[1])
    assert scores_of(run) == {"mean of members": 71.0, "ensemble": 75.0, "any member right": 80.0}
    assert scores_of(run, each=True).items() >= {"student": 70.0, "peer1": 72.0}.items()


def test_a_recipe_that_asks_for_the_fusion_still_has_all_columns(make):
    folder = grouped(make, "ffsd", FFSD, ["student1", "student2"])
    settings = Run(folder).job().model_copy(update={"recipe": {"metric": "top1 of fusion"}})
    Run(folder).config.write_text(json.dumps(settings.model_dump(mode="json", warnings=False)))
    run = Outcome.read(folder)
    assert (run.metric, run.last) == ("top1 of fusion", 76.0)
    assert scores_of(run)["leader"] == 74.5


def test_csv_has_them_behind_the_columns_that_are_always_there(folders):
    lines = list(csv.DictReader(io.StringIO(as_csv(with_members(rows(folders))))))
    assert float(lines[2]["fusion_mean"]) == 77.0
    assert float(lines[2]["mean of members_std"]) == pytest.approx(2 ** 0.5)
    assert lines[1]["fusion_mean"] == ""
    assert list(lines[0])[:21] == list(next(csv.DictReader(io.StringIO(as_csv(rows(folders))))))


def test_the_command_shows_them(folders):
    shown = CliRunner().invoke(app, ["table", *map(str, folders), "--members", "--format", "markdown"])
    assert shown.exit_code == 0
    assert "| mean of members | ensemble | fusion | leader | any member right |" in shown.output


# --- the page


@pytest.fixture
def page(make, tmp_path):
    """DML and FFSD of two seeds beside other runs, with how alike their networks are."""
    folders = [make("alone", method="none", verb="train", teacher=None, final=66.0)]
    for method, scores, together in (("dml", DML, ["student", "peer1"]), ("ffsd", FFSD, ["student1", "student2"])):
        for seed in (0, 1):
            last = {"top1": 70.0 + seed, "members": {who: {"top1": score + seed} for who, score in scores.items()},
                    "together": together}
            last["members"]["cosine similarity"] = {"features": 0.25 + seed / 50, "logits": 0.9}
            result = {"verb": "distill", "test": {"last": last, "peak": last}}
            folders.append(make(f"{method}{seed}", method=method, teacher=None, seed=seed, result=result))
            records = [record | ({"members": last["members"], "together": together} if record["kind"] == "test" else {})
                       for record in Run(folders[-1]).records()]
            Run(folders[-1]).metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    return write_page(folders, tmp_path / "report.html").read_text()


def test_a_page_tells_everyone_in_a_group_under_their_own_names(page):
    section = page.partition("<h2>Groups</h2>")[2].partition("<h2>")[0]
    told = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]*>", " ", section, flags=re.DOTALL))
    assert "dml 70.50 ± 0.71 71.50 ± 0.71 75.50 ± 0.71 80.50 ± 0.71 0.2600 ± 0.0141 0.9000" in told
    assert "ffsd fusion 76.50 ± 0.71, leader 75.00 ± 0.71 70.50 ± 0.71 72.00 ± 0.71" in told
    for line in ("student1 71.50 ± 0.71", "student2 72.50 ± 0.71", "fusion 76.50 ± 0.71", "peer1 72.50 ± 0.71"):
        assert line in told
    assert "papers print it as an ensemble’s accuracy, which it is not" in told


def test_a_page_without_groups_has_no_such_section(shelf, tmp_path):
    assert "<h2>Groups</h2>" not in write_page(shelf[1:3], tmp_path / "report.html").read_text()


def test_a_picture_of_groups_has_a_mark_for_everyone(folders):
    figure = members([row for row in with_members(rows(folders)) if row.members])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["dml", "ffsd"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean of members", "ensemble", "fusion", "leader"]
