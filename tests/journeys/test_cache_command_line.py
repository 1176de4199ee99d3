"""Journeys with a cache: filled ahead or on the way, read, and every mistake answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from journey import limbeck
from PIL import Image
from safetensors.torch import load_file

from limbeck.training.engine import Interrupts

SMALL = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=40", "--device", "cpu"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "own"))


def shares(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["cached"] for record in records if record["kind"] == "train"]


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a small distillation, its teacher trained."""
    teacher = tmp_path_factory.mktemp("runs") / "teacher"
    assert limbeck("train", "--run", teacher, *SMALL, "--quiet", "--network", "digits_large", "--epochs", "6") == 0
    return [*SMALL, "--teacher", str(teacher), "--student", "digits_small", "--method", "kd"]


def test_filled_ahead_then_read_gives_the_live_run_s_student(kd: list[str], tmp_path: Path,
                                                             capsys: pytest.CaptureFixture) -> None:
    cache, exact = tmp_path / "cache", ["--set", "cache.precision=float32"]
    assert limbeck("cache", "--cache", cache, *kd, *exact) == 0
    said = capsys.readouterr()
    assert "cache: 0 of 1,080 views of teacher are stored" in said.err
    assert "(9 of an image, 12 bytes each, 12.66 KiB in all)" in said.err
    assert f"teacher: 9 views of 120 images are stored, 21.12 KiB in {cache / 'teacher'}" in said.out
    assert "KL from its distribution to what is read: " in said.out
    assert "a step takes " in said.out
    assert limbeck("cache", "--cache", cache, *kd, *exact, "--quiet") == 0
    assert "nothing had to be computed" in capsys.readouterr().out
    for name, more in (("live", []), ("cached", ["--cache", cache, *exact])):
        assert limbeck("distill", "--run", tmp_path / name, *kd, "--epochs", "2", "--quiet", *more) == 0
    live, cached = (load_file(tmp_path / name / "student.safetensors") for name in ("live", "cached"))
    for key, value in live.items():
        torch.testing.assert_close(cached[key], value, rtol=1e-5, atol=1e-6)
    assert shares(tmp_path / "cached") == [{"teacher": 1.0}] * 2


def test_filled_on_the_way_a_few_views_of_a_few_classes(kd: list[str], tmp_path: Path,
                                                        capsys: pytest.CaptureFixture) -> None:
    few = ["--cache", tmp_path / "cache", "--set", "cache.views=2", "--set", "cache.top_k=2"]
    assert limbeck("distill", "--run", tmp_path / "one", *kd, *few, "--epochs", "4") == 0
    assert [found["teacher"] for found in shares(tmp_path / "one")] == [0, 0, 1, 1]
    assert "teacher cached 1" in capsys.readouterr().err
    assert limbeck("distill", "--run", tmp_path / "two", *kd, *few, "--epochs", "1", "--seed", "1", "--quiet") == 0
    assert shares(tmp_path / "two") == [{"teacher": 1.0}]


def test_filling_that_is_asked_to_stop_goes_on_with_the_same_command(
        kd: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Interrupts):
        def __enter__(self) -> Interrupts:
            self.asked = True
            return self

    words = ["--cache", tmp_path / "cache", *kd]
    monkeypatch.setattr("limbeck.training.engine.Interrupts", Asked)
    assert limbeck("cache", *words, "--quiet") == 130
    assert "stopped with 64 views more in" in capsys.readouterr().err
    monkeypatch.undo()
    assert limbeck("cache", *words) == 0
    assert "cache: 64 of 1,080 views of teacher are stored" in capsys.readouterr().err


def test_a_search_and_its_retraining_share_the_features(kd: list[str], tmp_path: Path) -> None:
    words = [word if word != "kd" else "distpro" for word in kd]
    assert limbeck("distill", "--run", tmp_path / "run", *words, "--cache", tmp_path / "cache", "--quiet", "--set",
                   "cache.taps=null", "--set", "cache.views=1", "--epochs", "2") == 0
    assert shares(tmp_path / "run" / "search") == [{"teacher": 0.0}]
    first, second = shares(tmp_path / "run")
    assert 0.7 < first["teacher"] < 0.9  # the search held out a fifth
    assert second == {"teacher": 1.0}


def test_photographs_have_a_few_boxes(kd: list[str], tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(0)
    for name in ("ant", "bee"):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for i in range(6):
            pixels = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=chance).numpy()
            Image.fromarray(pixels).save(tmp_path / "photographs" / name / f"{i}.png")
    words = ["--data", tmp_path / "photographs", "--set", "data.in_memory=false", "--set", "data.augment=resized-crop",
             "--set", "data.workers=0", "--set", "training.check_teacher=false", "--device", "cpu", "--quiet"]
    nets = ["--teacher", "resnet8", "--student", "resnet8", "--method", "kd", "--cache", tmp_path / "cache",
            "--set", "cache.views=2"]
    assert limbeck("cache", *words, *nets, "--seed", "0") == 0
    assert limbeck("distill", "--run", tmp_path / "run", *words, *nets, "--epochs", "3") == 0
    assert shares(tmp_path / "run") == [{"teacher": 1.0}] * 3


# --- mistakes


@pytest.mark.parametrize(("verb", "more", "told"), [
    ("distill", ["--set", "training.teacher_batch_statistics=true"],
     "a cache stores what a teacher says of one image; with training.teacher_batch_statistics=true"),
    ("distill", ["--set", "cache.top_k=3"], "got 3, where they are (3,). Give fewer, or leave it out"),
    ("distill", ["--set", "data.mixup=0.2"], "with data.mixup or data.cutmix it looks at mixtures"),
    ("distill", ["--set", "cache.precison=bf16"], "there is no setting cache.precison; closest: ['precision'"),
    ("distill", ["--set", "cache.taps=[logits, stag3]", "--method", "kd+at"], "'stag3'"),
    ("distill", ["--method", "at"], "reads its ['stage1', "),
    ("cache", ["--method", "dml", "--set", "networks.peers=[digits_small]"], "the method has no frozen network"),
])
def test_a_cache_that_cannot_be_is_refused(kd: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, verb: str,
                                           more: list[str], told: str) -> None:
    run = ["--run", tmp_path / "run"] if verb == "distill" else []
    assert limbeck(verb, *run, "--cache", tmp_path / "cache", *kd, "--quiet", "--set", "training.epochs=1", *more) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_training_a_teacher_needs_no_cache(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("train", "--run", tmp_path, *SMALL, "--network", "digits_small", "--set",
                   f"cache.folder={tmp_path}") == 2
    assert "a cache stores outputs of a teacher; `limbeck train` has none" in capsys.readouterr().err


def test_another_augmentation_is_refused_and_said(kd: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = [*kd, "--cache", tmp_path / "cache", "--quiet", "--epochs", "1"]
    assert limbeck("distill", "--run", tmp_path / "one", *words) == 0
    assert limbeck("distill", "--run", tmp_path / "two", *words, "--set", "data.augment=none") == 2
    assert "its augmentation kind is crop, and none is given" in capsys.readouterr().err
