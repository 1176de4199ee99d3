"""What is read from a run's folder: its label, its scores, its curves."""

import json
import math
from dataclasses import replace

import pytest

from limbeck.errors import Mistake
from limbeck.report import Outcome, read_all
from limbeck.runs import Run


@pytest.mark.parametrize(("settings", "label"), [
    ({"method": "none", "verb": "train", "teacher": None}, "none"),
    ({"method": "kd"}, "kd"),
    ({"method": "reviewkd"}, "reviewkd"),
    ({"method": "distpro"}, "distpro"),
    ({"method": "distpro", "process": {"use": "equal"}}, "distpro, equally weighted"),
    ({"method": "distpro", "process": {"use": "final", "file": "found"}}, "distpro, final weights"),
    ({"method": "distpro", "verb": "search"}, "search"),
    ({"method": "reviewkd", "verb": "search"}, "search of reviewkd"),
    ({"method": "reviewkd", "process": {"file": "found"}}, "reviewkd, searched process"),
    ({"method": "reviewkd", "process": {"file": "found", "use": "equal"}}, "reviewkd, equally weighted"),
])
def test_label(make, settings, label):
    assert Outcome.read(make("run", **settings)).what == label


@pytest.mark.parametrize("verb", ["train", "distill", "search"])
def test_an_unfinished_run_knows_its_verb_from_its_command(make, verb):
    assert Outcome.read(make("run", verb=verb, done=1)).verb == verb


def test_a_run_without_metrics_has_no_scores(make):
    run = Outcome.read(make("run", done=0))
    assert (run.finished, run.done, run.last, run.peak, run.best, run.seconds) == (False, 0, None, None, None, 0)
    assert run.curve("test", "top1") == ([], [])
    assert run.stages() == []


def test_scores_come_from_the_result(make):
    scores = {"test": {"last": {"top1": 90.5}, "peak": {"top1": 91.25}},
              "select": {"best": {"top1": 89.0}, "test_at_best": {"top1": 90.75}}, "seconds": 61.5}
    run = Outcome.read(make("run", result=scores))
    assert (run.last, run.peak, run.best, run.seconds) == (90.5, 91.25, 90.75, 61.5)


def test_bare_numbers_of_the_selection_are_read_too(make):
    result = {"test": {"last": {"top1": 90.5}, "peak": {"top1": 91.0}}, "select": {"best": 89.0, "test_at_best": 90.75}}
    assert Outcome.read(make("run", result=result)).best == 90.75


def test_an_unfinished_run_has_its_last_score_so_far_and_no_peak(make):
    folder = make("run", epochs=12, done=3)
    tests = [record for record in Run(folder).records() if record["kind"] == "test"]
    run = Outcome.read(folder)
    assert (run.last, run.peak, run.done, run.epochs) == (tests[-1]["top1"], None, 3, 12)
    assert run.seconds == 3 * 1.5


def test_another_measure_ranks_where_there_is_no_top1(make):
    test = {"last": {"miou": 61.0, "pixel_accuracy": 90.0}, "peak": {"miou": 62.0}}
    run = Outcome.read(make("run", result={"test": test}))
    assert (run.metric, run.last, run.peak) == ("miou", 61.0, 62.0)


def test_epochs_count_on_over_stages(make):
    run = Outcome.read(make("run", stages={"hints": 2, "kd": 3}))
    assert run.curve("train", "loss")[0] == [1, 2, 3, 4, 5]
    assert run.stages() == [("hints", 0), ("kd", 2)]
    assert run.done == 3


def test_a_dropped_term_is_not_a_number_where_it_was_not_computed(make):
    epochs, values = Outcome.read(make("run", method="distpro", epochs=10)).curve("train", "losses", "t1>s1/c2")
    assert len(epochs) == 10
    assert [math.isnan(value) for value in values] == [epoch > 6 for epoch in epochs]


def test_length_of_a_search(make):
    planned = Outcome.read(make("planned", method="distpro", verb="search", epochs=12, done=0))
    given = Outcome.read(make("given", method="distpro", verb="search", epochs=12, done=0, search={"epochs": 5}))
    measured = Outcome.read(make("measured", method="distpro", verb="search", epochs=12, stages={"search": 3}))
    assert (planned.epochs, given.epochs, measured.epochs) == (2, 5, 3)
    assert Outcome.read(make("short", method="distpro", verb="search", epochs=2, done=0)).epochs == 1


@pytest.mark.parametrize(("source", "recorded", "name"), [
    ("cifar100:/data/cifar", None, "cifar100"), ("/data/flowers/", None, "flowers"), ("hf:user/birds", None, "birds"),
    ("digits", "digits", "digits"), ("/data/flowers", "Flowers", "Flowers"),
    ("hf:/data/birds", "hf:/data/birds", "birds")])
def test_name_of_the_data(make, source, recorded, name):
    folder = make("run", data={"source": source})
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps(about | {"data": {"name": recorded}}))
    assert Outcome.read(folder).data == name


def test_a_teacher_given_as_a_run_is_called_by_its_network(make):
    teacher = make("teacher", method="none", verb="train", teacher=None, student="wrn_40_2")
    assert Outcome.read(make("run", teacher=str(teacher))).teacher == "wrn_40_2"


def test_the_teacher_s_score_is_that_of_its_run_on_the_same_data(make):
    teacher = str(make("teacher", method="none", verb="train", teacher=None, final=98.5))
    assert Outcome.read(make("run", teacher=teacher)).teacher_score == 98.5
    assert Outcome.read(make("named", teacher="resnet56")).teacher_score is None
    elsewhere = Outcome.read(make("elsewhere", teacher=teacher))
    assert replace(elsewhere, about={"data": {"name": "flowers"}}).teacher_score is None


def test_a_resumed_run_took_the_time_of_all_its_parts(make):
    scores = {"test": {"last": {"top1": 90.5}, "peak": {"top1": 91.0}}, "seconds": 2.0}
    assert Outcome.read(make("run", epochs=12, result=scores)).seconds == 12 * 1.5


def test_a_run_named_twice_is_read_once(make, tmp_path):
    folder = make("run")
    assert len(read_all([folder, tmp_path / "." / "run"])) == 1


def test_a_missing_folder(tmp_path):
    with pytest.raises(Mistake, match=r"needs folders of runs; .*gone is none: there is no such folder. Give a"):
        read_all([tmp_path / "gone"])


def test_a_folder_of_runs_is_no_run(make, tmp_path):
    make("a"), make("b")
    with pytest.raises(Mistake, match=r"it holds no config.yaml. It holds the runs \['a', 'b'\]: give .*/\*\."):
        read_all([tmp_path])


def test_no_runs():
    with pytest.raises(Mistake, match=r"needs at least one run; got no folder. Give folders that --run named"):
        read_all([])


# --- measures of other members than the deployed one


def with_members(make, metric: str):
    """Two stages of two epochs, in which a fusion and two students answer beside the deployed leader."""
    folder = make("run", method="ffsd", teacher=None, stages={"warm": 2, "ffsd": 2}, recipe={"metric": metric})
    records = list(Run(folder).records())
    for place, record in enumerate(record for record in records if record["kind"] == "test"):
        record["members"] = {"leader": {"top1": record["top1"]}, "fusion": {"top1": (99.0, 71.0, 80.0, 76.0)[place]},
                             "student1": {"top1": 70.0}, "student2": {"top1": 71.0}, "any member right": {"top1": 79.5}}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    last = next(record for record in reversed(records) if record["kind"] == "test")
    result = json.loads((folder / "result.json").read_text())
    result["test"]["last"]["members"] = last["members"]
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.mark.parametrize(("metric", "last", "peak"), [
    ("top1 of fusion", 76.0, 80.0), ("top1 of student1 and student2", 70.5, 70.5),
    ("top1 of any member right", 79.5, 79.5)])
def test_a_recipe_may_ask_for_other_members(make, metric, last, peak):
    run = Outcome.read(with_members(make, metric))
    assert (run.metric, run.last, run.peak) == (metric, last, peak)
    assert run.curve("test", metric)[1][-1] == last


def test_who_asks_for_a_member_that_is_not_there_gets_the_deployed_one(make):
    run = Outcome.read(with_members(make, "top1 of student1 and student9"))
    assert (run.metric, run.last) == ("top1", 95.0)


def test_an_unfinished_run_has_no_peak_of_a_member_either(make):
    folder = with_members(make, "top1 of fusion")
    (folder / "result.json").unlink()
    assert (Outcome.read(folder).last, Outcome.read(folder).peak) == (76.0, None)
