"""Journeys with a searched process: to other data and another pair, and at several lengths from one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey import COLOURS, QUIET, limbeck, photographs

from limbeck.sweeps.plan import plan

ROOT = Path(__file__).parents[2]


def test_a_process_goes_to_other_data_and_another_pair(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = photographs(tmp_path / "data", list(COLOURS), side=8)
    few = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=40"]
    for name, words, network in (("large", few, "digits_large"), ("other", ["--data", data], "digits_large")):
        assert limbeck("train", "--run", tmp_path / name, *words, "--network", network, "--epochs", "6",
                       "--batch-size", "16", *QUIET) == 0
    assert limbeck("search", "--run", tmp_path / "search", *few, "--teacher", tmp_path / "large", "--student",
                   "digits_small", "--method", "distpro", "--epochs", "1", *QUIET) == 0
    replay = ["--teacher", tmp_path / "other", "--student", "digits_large", "--method", "distpro", "--epochs", "1",
              "--process", tmp_path / "search", "--batch-size", "16", *QUIET]
    assert limbeck("distill", "--run", tmp_path / "there", "--data", data, *replay) == 0
    capsys.readouterr()
    assert limbeck("distill", "--run", tmp_path / "grid", "--data", data, *replay, "--set",
                   "method.space=official10") == 2
    said = capsys.readouterr().err
    assert "the process and the method do not share all terms" in said
    assert "t1>s1/c2" in said
    assert "process.unmatched=drop" in said


def test_the_bench_of_fast_distillation_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "imagenet").mkdir(parents=True)
    (tmp_path / "data" / "tiny-imagenet-200").mkdir()
    made = plan([ROOT / "benchmarks" / "fast_distillation.yaml"])
    assert len(made.pieces) == 2 + 3 * 2 * 8
    piece = made.pieces["distpro/resnet34-resnet18/epochs-65/0"]
    assert (piece.after, piece.job.training.epochs) == ("searches/tiny-imagenet/resnet34-resnet18", 65)


@pytest.mark.slow
def test_one_command_trains_several_lengths_under_one_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bench = tmp_path / "bench.yaml"
    bench.write_text(f"""
folder: {tmp_path / "runs"}
common: {{data: {{source: digits, classes: 3, per_class: 40}}, training: {{epochs: 2}}}}
teachers: {{large: {{student: digits_large, training: {{epochs: 6}}}}}}
pairs: {{ls: {{teacher: large, student: digits_small}}}}
searches: {{once: {{method: distpro, search: {{epochs: 1}}}}}}
methods:
  kd: kd
  distpro: {{method: distpro, process: {{file: once}}}}
lengths: [1, 2]
""")
    assert limbeck("sweep", bench, *QUIET) == 0
    assert limbeck("plot", "lengths", tmp_path / "runs", "--out", tmp_path / "lengths.png") == 0
    capsys.readouterr()
    assert limbeck("table", tmp_path / "runs", "--sooner", "distpro", "--format", "markdown") == 0
    assert "| epochs of distpro | speed-up |" in capsys.readouterr().out
