"""Journeys of a user whose teacher knows other classes than the data, or the same in another order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journey import QUIET, limbeck, photographs

KD = ["--student", "digits_small", "--method", "kd", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of red, green, blue and grey, whose classes are blue, green, grey, red."""
    folder = tmp_path_factory.mktemp("made")
    data = photographs(folder / "data", ["red", "green", "blue", "grey"])
    assert limbeck("train", "--run", folder / "teacher", "--data", data, "--network", "digits_large", "--epochs", "12",
                   "--batch-size", "16", *QUIET) == 0
    return folder / "teacher"


def distilled(folder: Path, teacher: Path, *words: str | Path) -> dict:
    assert limbeck("distill", "--run", folder / "run", "--teacher", teacher, *KD, *words) == 0
    return json.loads((folder / "run" / "result.json").read_text())["teacher"]


def test_the_same_names_in_another_order_are_matched_and_shown(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = photographs(tmp_path / "data", ["red", "green", "blue", "grey"], called=["Red", "green", "BLUE", "a-grey"])
    found = distilled(tmp_path, teacher, "--data", data, "--set", "teacher.classes={a-grey: grey}")
    assert found["sample_accuracy"] > 90
    said = " ".join(capsys.readouterr().err.split())
    assert "matched by name: 'BLUE' is its class 0, 'blue'; 'Red' is its class 3, 'red'; 'a-grey'" in said
    assert json.loads((tmp_path / "run" / "network.json").read_text())["classes"] == ["BLUE", "Red", "a-grey", "green"]


def test_some_of_the_teachers_classes_are_chosen(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = photographs(tmp_path / "data", ["red", "green"])
    assert distilled(tmp_path, teacher, "--data", data)["sample_accuracy"] > 90
    assert "knows 4 classes, of which the data has 2" in " ".join(capsys.readouterr().err.split())
    assert limbeck("evaluate", tmp_path / "run", "--device", "cpu") == 0


def test_names_that_do_not_match_ask_for_a_mapping(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = photographs(tmp_path / "data", ["red", "green"], called=["reed", "grun"])
    words = ["distill", "--run", tmp_path / "run", "--data", data, "--teacher", teacher, *KD, "--quiet"]
    assert limbeck(*words) == 2
    said = capsys.readouterr().err
    assert "'grun', closest: ['green'" in said
    assert "'reed', closest: ['red'" in said
    assert "--set 'teacher.classes={grun: its name}'" in said
    assert limbeck(*words, "--set", "teacher.classes=nowhere.yaml") == 2
    assert "there is no file 'nowhere.yaml'" in capsys.readouterr().err
    (tmp_path / "names.yaml").write_text("reed: red\ngrun: green\n")
    assert limbeck(*words[:2], tmp_path / "other", *words[3:], "--set", f"teacher.classes={tmp_path / 'names.yaml'}"
                   ) == 0


def test_a_teacher_of_other_classes_teaches_by_its_features(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = photographs(tmp_path / "data", ["red", "green"], called=["x", "y"])
    words = ["distill", "--run", tmp_path / "run", "--data", data, "--teacher", teacher, *KD[:2], "--epochs", "1",
             "--device", "cpu", "--method"]
    assert limbeck(*words, "at") == 0
    assert "method at learns from its features alone" in " ".join(capsys.readouterr().err.split())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["teacher"]["sample_accuracy"] is None
    assert limbeck(*words[:2], tmp_path / "other", *words[3:], "kd+at") == 2
    assert "of 2, 2 are not there by name" in capsys.readouterr().err


def test_a_student_has_no_other_classes(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--data", "digits", "--teacher", teacher, *KD, "--set", "student.classes=by-order"]
    assert limbeck("distill", "--run", tmp_path / "run", *words, "--quiet") == 2
    assert "Leave student.classes out" in capsys.readouterr().err
