"""Journeys of a user whose images have no labels, and of one whose labels are smoothed and mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from journey import COLOURS, QUIET, limbeck, photographs
from safetensors.torch import load_file

from limbeck.training.trainer import Trainer

STUDENT = ["--student", "digits_small", "--batch-size", "16"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled data, a teacher trained on it, and its images in one flat folder."""
    folder = tmp_path_factory.mktemp("made")
    data = photographs(folder / "labelled", list(COLOURS))
    assert limbeck("train", "--run", folder / "teacher", "--data", data, "--network", "digits_large", "--epochs", "12",
                   "--batch-size", "16", *QUIET) == 0
    photographs(folder / "flat", list(COLOURS), called=[""] * 4, count=20)
    photographs(folder / "split" / "train", list(COLOURS), called=[""] * 4, count=20)
    photographs(folder / "split" / "test", ["green", "red"])
    return folder


def test_a_flat_folder_distils_and_is_scored_by_agreement(
        made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("distill", "--run", tmp_path / "run", "--data", made / "flat", "--teacher", made / "teacher",
                   *STUDENT, "--method", "kd", "--epochs", "12", "--device", "cpu") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the supervised terms ce are left out, and the others keep their weights" in said
    assert "how often the student's first choice is the teacher's (agreement)" in said
    last = json.loads((tmp_path / "run" / "result.json").read_text())["test"]["last"]
    assert last["agreement"] > 90
    assert "top1" not in last
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert record["weights"] == {"kl": pytest.approx(0.9)}
    assert json.loads((tmp_path / "run" / "network.json").read_text())["classes"] == sorted(COLOURS)
    assert limbeck("evaluate", tmp_path / "run", "--device", "cpu") == 0
    assert capsys.readouterr().out == f"agreement {last['agreement']:.4g}\n"
    assert limbeck("evaluate", tmp_path / "run", "--data", made / "labelled", "--device", "cpu") == 0
    assert "top1" in capsys.readouterr().out
    assert limbeck("table", tmp_path / "run") == 0
    assert "agreement with the teacher" in " ".join(capsys.readouterr().out.split())


def test_a_labelled_test_folder_scores_unlabelled_training(
        made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("distill", "--run", tmp_path / "run", "--data", made / "split", "--teacher", made / "teacher",
                   *STUDENT, "--method", "kd+at", "--epochs", "12", "--device", "cpu") == 0
    assert "knows 4 classes, of which the data has 2" in " ".join(capsys.readouterr().err.split())
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"]["last"]["top1"] > 90


def test_a_process_found_on_labelled_images_replays_on_unlabelled_ones(made: Path, tmp_path: Path) -> None:
    words = ["--teacher", made / "teacher", *STUDENT, "--method", "distpro", *QUIET]
    assert limbeck("search", "--run", tmp_path / "search", "--data", made / "labelled", *words, "--epochs", "1") == 0
    assert limbeck("distill", "--run", tmp_path / "run", "--data", made / "flat", *words, "--epochs", "1",
                   "--process", tmp_path / "search") == 0


@pytest.mark.parametrize(("verb", "words", "part"), [
    ("distill", ["--method", "dkd"], "method dkd reads labels in target, nontarget, and the training images have none"),
    ("distill", ["--method", "dml"], "method dml learns from labels, as no finished network teaches"),
    ("distill", ["--method", "distpro"], "a search needs labels"),
    ("distill", ["--method", "kd", "--set", "training.select=0.2"], "training.select needs labels"),
    ("distill", ["--method", "kd", "--teacher", "digits_large"], "digits_large does not say what it knows"),
])
def test_what_needs_labels_says_so(verb: str, words: list[str], part: str, made: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    assert limbeck(verb, "--run", tmp_path / "run", "--data", made / "flat", "--teacher", made / "teacher", *STUDENT,
                   *QUIET, *words) == 2
    assert part in capsys.readouterr().err


def test_training_alone_needs_labels(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--data", made / "flat", "--network", "digits_small", *QUIET]
    assert limbeck("train", "--run", tmp_path / "run", *words) == 2
    assert "train needs labels" in capsys.readouterr().err


MIXED = ["data.mixup=0.8", "data.cutmix=1.0", "training.label_smoothing=0.1", "training.ema=0.9",
         "training.deploy_ema=true"]


def test_mixed_and_smoothed_labels_train_and_resume_bit_for_bit(
        made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--data", made / "labelled", "--teacher", made / "teacher", *STUDENT, "--method", "kd", "--epochs", "4",
             *QUIET, *[word for setting in MIXED for word in ("--set", setting)]]
    assert limbeck("distill", "--run", tmp_path / "whole", *words) == 0
    step = Trainer._step

    def stopping(self: Trainer, batch: object) -> None:
        step(self, batch)  # type: ignore[arg-type]
        self.interrupts.asked = self.clock.step == 4

    monkeypatch.setattr(Trainer, "_step", stopping)
    assert limbeck("distill", "--run", tmp_path / "parts", *words) == 130
    monkeypatch.undo()
    assert limbeck("resume", tmp_path / "parts", *QUIET) == 0
    whole, parts = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_method_that_cannot_do_with_mixed_labels_says_so(
        made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("distill", "--run", tmp_path / "run", "--data", made / "labelled", "--teacher", made / "teacher",
                   *STUDENT, "--method", "kd+dkd", "--set", "data.mixup=0.2", *QUIET) == 2
    assert "method kd+dkd needs one class for each image (dkd/target, dkd/nontarget)" in capsys.readouterr().err
