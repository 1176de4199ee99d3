"""Segmentation and depth from the command line: trained, distilled, searched, stopped and resumed, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from journey import QUIET, limbeck
from PIL import Image
from safetensors.torch import load_file

from limbeck.seen import Batch
from limbeck.training.trainer import Trainer

NETWORKS = """
from torch import nn


def block(channels, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Small(nn.Module):
    taps = {"stage1": "stage1", "stage2": "stage2"}

    def __init__(self, channels, outputs, width):
        super().__init__()
        self.stage1, self.stage2 = block(channels, width), block(width, 2 * width)
        self.head = nn.Conv2d(2 * width, outputs, 1)

    def forward(self, images):
        return self.head(self.stage2(self.stage1(images)))


def small(num_classes, channels=3):
    return Small(channels, num_classes, 4)


def large(num_classes, channels=3):
    return Small(channels, num_classes, 8)
"""
COLOURS = np.array([(200, 40, 40), (40, 180, 40), (40, 40, 200)])


@pytest.fixture(autouse=True)
def own_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dense_nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)


def scenes(folder: Path, kind: str = "labels", images: int = 20) -> Path:
    """Three coloured blocks a picture, each a class, or so many metres away; a void row, or one without a reading."""
    chance = np.random.default_rng(0)
    for i in range(images):
        which = chance.integers(0, 3, (4, 4)).repeat(4, 0).repeat(4, 1)
        pixels = (COLOURS[which] + chance.integers(-20, 20, (16, 16, 3))).clip(0, 255).astype(np.uint8)
        values = which.astype(np.uint8) if kind == "labels" else (1000 * (which + 1)).astype(np.uint16)
        values[0] = 255 if kind == "labels" else 0
        for place, values_ in (("images", pixels), (kind, values)):
            path = folder / place / ("test" if i % 4 == 0 else "train") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values_).save(path)
    return folder


def words(data: Path, *more: str) -> list[str]:
    return [*QUIET, "--data", str(data), "--set", "data.crop=[8, 12]", "--batch-size", "5", "--lr", "0.1",
            "--precision", "float32", *more]


def result(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "result.json").read_text())
    return read


def test_segmentation_is_learned_distilled_searched_and_compared(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = words(scenes(tmp_path / "scenes"))
    teacher, searched = tmp_path / "teacher", tmp_path / "searched"
    assert limbeck("train", "--run", teacher, *data, "--network", "py:dense_nets:large", "--epochs", "12") == 0
    assert result(teacher)["test"]["last"]["miou"] > 40
    assert limbeck("distill", "--run", searched, *data, "--teacher", teacher, "--student", "py:dense_nets:small",
                   "--method", "distpro", "--epochs", "2", "--set", "search.epochs=1") == 0
    assert (searched / "search" / "process.safetensors").is_file()
    assert set(result(searched)["test"]["last"]) >= {"miou", "pixel_accuracy", "cross_entropy"}
    about = json.loads((searched / "about.json").read_text())
    assert about["data"]["task"] == "segmentation"
    capsys.readouterr()
    assert limbeck("evaluate", searched, "--device", "cpu") == 0
    assert f"miou {result(searched)['test']['last']['miou']:.4g}" in capsys.readouterr().out
    assert limbeck("table", teacher, searched) == 0
    assert "test mIoU" in capsys.readouterr().out
    assert limbeck("report", teacher, searched, "--out", tmp_path / "report.html") == 0
    assert "mIoU" in (tmp_path / "report.html").read_text()


def test_depth_is_better_the_lower(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = words(scenes(tmp_path / "rooms", "depth"), "--set", "data.sparse_depth=20", "--set", "data.jitter=0")
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert limbeck("train", "--run", teacher, *data, "--network", "py:dense_nets:large", "--epochs", "12",
                   "--set", "training.select=0.2") == 0
    found = result(teacher)
    records = [json.loads(line) for line in (teacher / "metrics.jsonl").read_text().splitlines()]
    tests, selected = ([one for one in records if one["kind"] == kind] for kind in ("test", "select"))
    assert found["test"]["peak"]["rmse"] == min(one["rmse"] for one in tests) < tests[0]["rmse"]
    assert found["select"]["best"]["rmse"] == min(one["rmse"] for one in selected)
    assert load_file(teacher / "best.safetensors").keys() == load_file(teacher / "student.safetensors").keys()
    assert limbeck("distill", "--run", student, *data, "--teacher", teacher, "--student", "py:dense_nets:small",
                   "--method", "at", "--epochs", "1") == 0
    capsys.readouterr()
    assert limbeck("table", teacher, student) == 0
    assert "test RMSE ↓" in capsys.readouterr().out


def test_a_stopped_dense_run_ends_as_if_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = words(scenes(tmp_path / "rooms", "depth"), "--set", "data.sparse_depth=5", "--epochs", "3", "--network",
                 "py:dense_nets:small")
    assert limbeck("train", "--run", tmp_path / "whole", *data) == 0
    step = Trainer._step

    def asked_to_stop(self: Trainer, batch: Batch) -> None:
        step(self, batch)
        self.interrupts.asked = self.clock.step == 4

    with monkeypatch.context() as stopping:
        stopping.setattr(Trainer, "_step", asked_to_stop)
        assert limbeck("train", "--run", tmp_path / "parts", *data) == 130
    assert limbeck("resume", tmp_path / "parts", "--device", "cpu", "--quiet") == 0
    whole, parts = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize(("task", "network", "said"), [
    ("labels", "resnet8", "answers with a map (3, h, w) for each image; resnet8 gives (3,)"),
    ("depth", "timm:test_resnet", "answers with a map (1, h, w)"),
    ("depth+sparse", "torchvision:resnet18", "look at 3 channels; the images have 4")])
def test_networks_that_answer_otherwise_are_refused(task: str, network: str, said: str, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    kind, _, sparse = task.partition("+")
    more = ["--set", "data.sparse_depth=3"] if sparse else []
    data = words(scenes(tmp_path / "data", kind), *more)
    assert limbeck("train", "--run", tmp_path / "run", *data, "--network", network) == 2
    assert said in capsys.readouterr().err


def test_teachers_that_know_nothing_or_another_task_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rooms, streets = words(scenes(tmp_path / "rooms", "depth")), words(scenes(tmp_path / "streets"))
    untrained = ["--student", "py:dense_nets:small", "--teacher", "py:dense_nets:large", "--method", "at"]
    assert limbeck("distill", "--run", tmp_path / "a", *rooms, *untrained) == 2
    assert "has a rmse of" in (said := capsys.readouterr().err)
    assert "and guessing can give 0.8" in said
    assert limbeck("train", "--run", tmp_path / "b", *rooms, "--network", "py:dense_nets:small", "--epochs", "1") == 0
    assert limbeck("distill", "--run", tmp_path / "c", *streets, "--student", "py:dense_nets:small", "--teacher",
                   tmp_path / "b", "--method", "at") == 2
    assert "answers depth of images of 3 channels, and the data is for segmentation" in capsys.readouterr().err


def test_methods_of_several_views_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = words(scenes(tmp_path / "data"), "--set", "training.check_teacher=false")
    assert limbeck("distill", "--run", tmp_path / "run", *data, "--student", "py:dense_nets:small", "--teacher",
                   "py:dense_nets:large", "--method", "kdcl") == 2
    assert "kdcl looks at further views of each image" in capsys.readouterr().err


def test_a_cache_holds_views_of_scenes(tmp_path: Path) -> None:
    """Scaled crops are uncountable: some are drawn once, and found again by a second run."""
    data = words(scenes(tmp_path / "scenes"), "--set", "training.check_teacher=false", "--epochs", "2")
    teacher, cache = tmp_path / "teacher", tmp_path / "cached"
    assert limbeck("train", "--run", teacher, *data, "--network", "py:dense_nets:large") == 0
    stored = []
    for run in ("one", "two"):
        assert limbeck("distill", "--run", tmp_path / run, *data, "--teacher", teacher, "--student",
                       "py:dense_nets:small", "--method", "at", "--set", f"cache.folder={cache}", "--set",
                       "cache.taps=null", "--set", "cache.views=2") == 0
        stored.append({path: path.stat().st_size for path in cache.rglob("*") if path.is_file()})
    assert stored[0] == stored[1]
    assert result(tmp_path / "one")["test"] == result(tmp_path / "two")["test"]


@pytest.mark.parametrize(("kind", "more", "shape"), [
    ("labels", [], (3, 3)), ("depth", ["--set", "data.sparse_depth=20", "--set", "data.jitter=0"], (4, 1))])
def test_what_answers_with_maps_ships_and_answers_at_the_images_size(
        kind: str, more: list[str], shape: tuple[int, int], tmp_path: Path) -> None:
    run, (channels, outputs) = tmp_path / "run", shape
    assert limbeck("train", "--run", run, *words(scenes(tmp_path / "data", kind), *more), "--network",
                   "py:dense_nets:small", "--epochs", "1") == 0
    assert limbeck("export", run, "--to", "pt2,safetensors") == 0
    about = json.loads((run / "export" / "student.json").read_text())
    assert (about["task"], len(about["classes"])) == (("segmentation", 3) if kind == "labels" else ("depth", 0))
    assert about["input"]["shape"] == ["batch", channels, 16, 16]
    assert about["output"]["shape"] == ["batch", outputs, 16, 16]
    answer = torch.export.load(str(run / "export" / "student.pt2")).module()
    assert answer(torch.rand(3, channels, 16, 16)).shape == (3, outputs, 16, 16)
