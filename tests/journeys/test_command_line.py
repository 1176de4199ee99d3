"""Journeys of a new user: the main job, interrupted and resumed; and every mistake answered helpfully."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from journey import limbeck
from safetensors.torch import load_file

SMALL = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=40", "--device", "cpu", "--quiet"]
STUDENT = [*SMALL, "--student", "digits_small"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    assert limbeck("train", "--run", folder, *SMALL, "--network", "digits_large", "--epochs", "6") == 0
    return folder


# --- the main job


def test_distpro_from_the_command_line_searches_then_retrains(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "distpro"
    assert limbeck("distill", "--run", run, *STUDENT, "--teacher", teacher, "--method", "distpro", "--epochs", "2") == 0
    found = load_file(run / "search" / "process.safetensors")
    assert found["raw"].shape[1] == 27
    assert (found["raw"][0] == 1).all()
    assert (found["raw"][-1] != 1).all()
    result = json.loads((run / "result.json").read_text())
    assert 0 <= result["test"]["last"]["top1"] <= 100
    assert result["peak_memory"] > 2**26
    about = json.loads((run / "about.json").read_text())
    assert (about["precision"] in ("bf16", "float32"), about["channels_last"], about["tf32"]) == (True, True, False)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["train", "test"] * 2
    assert len(records[0]["weights"]) == 28


def test_the_student_is_plain_and_evaluates_to_its_score(teacher: Path, capsys: pytest.CaptureFixture) -> None:
    from limbeck.networks import build

    build("digits_large", 3).load_state_dict(load_file(teacher / "student.safetensors"))
    assert limbeck("evaluate", teacher, "--device", "cpu") == 0
    last = json.loads((teacher / "result.json").read_text())["test"]["last"]
    assert f"top1 {last['top1']:.4g}" in capsys.readouterr().out


def test_a_profile_tells_where_the_time_goes(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [word for word in STUDENT if word != "--quiet"]
    assert limbeck("distill", "--run", tmp_path / "run", *words, "--teacher", teacher, "--method", "kd", "--profile",
                   "--epochs", "1", "--batch-size", "6") == 0
    said = capsys.readouterr().err
    assert "on cpu: " in said
    assert "teacher forward" in said
    assert "a whole step" in said
    assert {path.name for path in (tmp_path / "run" / "profile").iterdir()} == {"profile.json", "profile.png",
                                                                               "trace.json"}


def test_a_process_replays_on_another_student_at_another_length(teacher: Path, tmp_path: Path) -> None:
    search = tmp_path / "search"
    words = [*STUDENT, "--teacher", teacher, "--method", "distpro"]
    assert limbeck("search", "--run", search, *words, "--epochs", "1") == 0
    for use in ("whole", "final", "equal"):
        words = ["--process", search, "--set", f"process.use={use}", "--epochs", "2"]
        assert limbeck("distill", "--run", tmp_path / use, *SMALL, "--student", "digits_large", "--teacher", teacher,
                       "--method", "distpro", *words) == 0


def test_terms_that_do_not_match_are_named_and_may_be_dropped(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*STUDENT, "--teacher", teacher, "--method", "distpro"]
    few, more = ["--set", "method.transforms=[c1]"], ["--set", "method.transforms=[c1, c2]"]
    assert limbeck("search", "--run", tmp_path / "search", *words, *few, "--epochs", "1") == 0
    replay = ["distill", "--run", tmp_path / "run", *words, *more, "--process", tmp_path / "search", "--epochs", "1"]
    said = told(capsys, *replay)
    assert "only in the process: none" in said
    assert "'t3>s2/c2'" in said.partition("only in the method")[2]
    dropped = ["distill", "--run", tmp_path / "other", *replay[3:], "--set", "process.unmatched=drop"]
    assert limbeck(*dropped) == 0
    record = json.loads((tmp_path / "other" / "metrics.jsonl").read_text().splitlines()[0])
    assert {name.partition("/")[2] for name in record["losses"]} == {"", "c1"}


def test_any_methods_terms_are_searched_and_replayed(teacher: Path, tmp_path: Path) -> None:
    words = [*STUDENT, "--teacher", teacher, "--method", "reviewkd"]
    assert limbeck("search", "--run", tmp_path / "search", *words, "--epochs", "1") == 0
    assert limbeck("distill", "--run", tmp_path / "run", *words, "--process", tmp_path / "search", "--epochs", "1") == 0


@pytest.mark.parametrize("settings", [
    ["search.estimator=forward"], ["search.estimator=central", "search.order=paper"], ["search.estimator=onesided"],
    ["search.order=lagged", "search.every=3"], ["search.optimizer=sgd", "process.normaliser=l1"],
    ["search.held_out_mode=eval", "search.held_out_augment=false", "process.normaliser=sigmoid", "process.scale=1"],
    ["search.clip=true", "search.refresh=1"], ["method.space=official10", "method.kl=1.0"],
    ["method.transforms=[c1]", "method.pairs=triangular", "method.before_activation=false"],
    ["training.teacher_batch_statistics=true", "optimizer.name=adamw", "optimizer.lr=0.001"],
], ids=" ".join)
def test_every_search_option_runs(settings: list[str], teacher: Path, tmp_path: Path) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    assert limbeck("search", "--run", tmp_path / "s", *STUDENT, "--teacher", teacher, "--method", "distpro",
                   "--epochs", "1", *words) == 0
    assert torch.isfinite(load_file(tmp_path / "s" / "process.safetensors")["raw"]).all()


def test_selection_split_reports_best_beside_last_and_peak(teacher: Path, tmp_path: Path) -> None:
    assert limbeck("distill", "--run", tmp_path / "r", *STUDENT, "--method", "kd", "--teacher", teacher,
                   "--epochs", "3", "--set", "training.select=0.2") == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["test"]["peak"]["top1"] >= result["test"]["last"]["top1"]
    assert result["select"]["test_at_best"]["step"] == result["select"]["best"]["step"]
    assert (tmp_path / "r" / "best.safetensors").is_file()


def test_a_killed_run_goes_on_and_ends_as_if_never_stopped(tmp_path: Path) -> None:
    words = ["train", *SMALL, "--network", "digits_small", "--epochs", "30"]
    assert limbeck(*words, "--run", tmp_path / "whole") == 0
    script = ("import os, signal, sys, torch, limbeck.training.trainer as t\n"
              "torch.set_num_threads(1)\n"  # as here: sums by two threads round otherwise
              "step = t.Trainer._step\n"
              "def killed(self, batch):\n"
              "    step(self, batch)\n"
              "    if self.clock.step == 25: os.kill(os.getpid(), signal.SIGTERM)\n"
              "t.Trainer._step = killed\n"
              "from limbeck.cli import main; main()")
    stopped = subprocess.run([sys.executable, "-c", script, *words, "--run", str(tmp_path / "parts")],
                             capture_output=True, text=True)
    assert stopped.returncode == 130
    assert "stopped at step 25 of 60, everything saved. Go on with: limbeck resume" in stopped.stderr
    assert limbeck("resume", tmp_path / "parts", "--device", "cpu", "--quiet") == 0
    whole, parts = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_the_same_command_on_a_finished_run_does_nothing(teacher: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in teacher.iterdir()}
    assert limbeck("train", "--run", teacher, *SMALL, "--network", "digits_large", "--epochs", "6") == 0
    assert {path: path.stat().st_mtime_ns for path in teacher.iterdir()} == before


def test_networks_of_timm_torchvision_and_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def own(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(4, num_classes))\n")
    monkeypatch.syspath_prepend(tmp_path)
    for i, name in enumerate(["timm:test_resnet", "torchvision:shufflenet_v2_x0_5", "py:own_nets:own"]):
        assert limbeck("train", "--run", tmp_path / str(i), *SMALL, "--network", name, "--epochs", "1",
                       "--set", "data.size=32") == 0
    assert limbeck("distill", "--run", tmp_path / "kd", *SMALL, "--teacher", tmp_path / "0", "--student",
                   "timm:test_resnet", "--method", "reviewkd", "--epochs", "1", "--set", "data.size=32",
                   "--set", "training.check_teacher=false") == 0


def test_help_and_lists_answer(capsys: pytest.CaptureFixture) -> None:
    for words in (["--help"], ["distill", "--help"], ["list", "methods"], ["list", "networks"], ["list", "data"],
                  ["taps", "resnet20"], ["taps", "timm:test_vit"]):
        assert limbeck(*words) == 0
    shown = capsys.readouterr().out
    for word in ("distpro", "resnet32x4", "cifar100:FOLDER", "stage3.pre"):
        assert word in shown


def test_help_does_not_import_torch() -> None:
    code = "import sys, limbeck.cli; assert not {'torch', 'matplotlib', 'pydantic'} & set(sys.modules), 'heavy import'"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- mistakes


def told(capsys: pytest.CaptureFixture, *words: str | Path) -> str:
    """The one message of a command that fails."""
    capsys.readouterr()
    assert limbeck(*words) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_misspelt_option_names_the_right_one(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert "--teacher" in told(capsys, "distill", "--run", tmp_path / "r", "--techer", "x")


def test_all_wrong_settings_are_told_at_once(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    said = told(capsys, "distill", "--run", tmp_path / "r", *SMALL, "--student", "resnet8", "--set", "training.epoch=3",
                "--set", "optimizer.lr=-1")
    assert "there is no setting training.epoch; closest: ['epochs'" in said
    assert "optimizer.lr = -1" in said


def test_wrong_networks_methods_and_options_are_told_at_once(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    said = told(capsys, "distill", "--run", tmp_path / "r", "--data", "digitz", "--student", "resnet21",
                "--teacher", "resnet8@none.pth", "--method", "distpro", "--set", "method.spaec=paper27",
                "--process", "nowhere.st")
    for part in ("got 'digitz', closest: ['digits'", "'resnet20'", "none.pth", "closest: ['space'",
                 "a process file is needed"):
        assert part in said
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("words", "part"), [
    (["--method", "kdd"], "there is no method 'kdd'; closest: ['kd'"),
    (["--method", "kd"], "method kd needs a teacher; none was given"),
    (["--data", "nowhere/at/all", "--teacher", "digits_large"], "nowhere/at/all"),
    (["--method", "kd", "--teacher", "digits_large"], "and guessing can give"),
    (["--teacher", "digits_large"], "method none learns from labels alone, and the teacher would not be asked"),
    (["--set", "method"], "--set takes section.key=value"),
    (["--config", "nowhere.yaml"], "a settings file is needed"),
    (["--teacher", "timm:resnet19"], "timm has no network 'resnet19'; closest"),
    (["--teacher", "py:nowhere:net"], "needs a module that can be imported"),
    (["--teacher", "resnet20@pretrained"], "only timm:, torchvision: and hf:"),
    (["--device", "cuda", "--method", "kd", "--teacher", "digits_large"], "--device cuda needs a GPU"),
])
def test_mistakes_say_what_to_do(words: list[str], part: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    if words[0] == "--device" and torch.cuda.is_available():
        words = ["--set", "training.precision=int8"]
        part = "training.precision"
    assert told(capsys, "distill", "--run", tmp_path / "r", *STUDENT, *words).count(part) == 1


def test_a_teacher_of_other_classes_is_refused(teacher: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    said = told(capsys, "distill", "--run", tmp_path / "r", "--data", "digits", "--student", "digits_small",
                "--teacher", teacher, "--method", "kd", "--device", "cpu", "--quiet")
    assert "of 10, 7 are not there by name" in said


def test_another_job_in_the_same_folder_is_refused(teacher: Path, capsys: pytest.CaptureFixture) -> None:
    before = (teacher / "config.yaml").read_text()
    said = told(capsys, "train", "--run", teacher, *SMALL, "--network", "digits_large", "--epochs", "7")
    assert "other settings (they differ in training.epochs)" in said
    assert (teacher / "config.yaml").read_text() == before


def test_a_truncated_checkpoint_is_named_and_kept(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    words = ["train", "--run", tmp_path / "r", *SMALL, "--network", "digits_small", "--epochs", "2"]
    assert limbeck(*words) == 0
    (tmp_path / "r" / "result.json").unlink()
    checkpoint = tmp_path / "r" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    metrics = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    assert "checkpoint.pt is damaged" in told(capsys, *words)
    assert (tmp_path / "r" / "metrics.jsonl").read_bytes() == metrics
    assert checkpoint.stat().st_size == 2000


def test_a_nan_loss_stops_with_a_reason(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    said = told(capsys, "train", "--run", tmp_path / "r", *SMALL, "--network", "digits_small", "--epochs", "20",
                "--lr", "1e30")
    assert "stopped being a number" in said
    assert "Lower optimizer.lr" in said


def test_a_full_disk_is_told_and_the_old_checkpoint_stays(
        capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--run", tmp_path / "r", *SMALL, "--network", "digits_small", "--epochs", "3"]
    import limbeck.files as files

    real, count = files.os.fsync, 0

    def full(handle: int) -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    assert "the disk is full" in told(capsys, *words)
    assert torch.load(tmp_path / "r" / "checkpoint.pt", weights_only=True)["step"] > 0
    monkeypatch.setattr(files.os, "fsync", real)
    assert limbeck(*words) == 0


def test_a_recipe_with_pairs_asks_which(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": "digits", "training": {"epochs": 1}, "pairs": {
        "a": {"student": "digits_small"}, "b": {"student": "digits_large"}}}))
    assert "needs --pair, one of ['a', 'b']" in told(capsys, "train", "--run", tmp_path / "r", "--config", recipe)
    assert limbeck("train", "--run", tmp_path / "r", "--config", recipe, "--pair", "a", *SMALL) == 0
