"""Journeys with networks that learn together: trained, everyone scored, costs told, from the run's folder alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from limbeck.cli import main
from limbeck.groups import SIMILARITY

SMALL = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=40", "--device", "cpu", "--quiet"]


def limbeck(*words: str | Path) -> int:
    """Run the command line in this process; returns its exit code."""
    before, sys.argv = sys.argv, ["limbeck", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FFSD on three digits, two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "ffsd"
    assert limbeck("distill", "--run", folder, *SMALL, "--student", "digits_small", "--method", "ffsd", "--epochs",
                   "2") == 0
    return folder


def last(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())["test"]["last"]


def test_a_finished_run_knows_who_learned_together_and_how_alike_they_are(run: Path) -> None:
    assert last(run)["together"] == ["student1", "student2"]
    assert set(last(run)["members"][SIMILARITY]) == {"features", "logits"}


def test_everyone_is_rebuilt_from_the_checkpoint_and_scores_as_at_the_end(
        run: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("evaluate", run, "--members", "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {name: pytest.approx(scores, abs=1e-5) for name, scores in last(run)["members"].items()}


def test_members_are_told_a_line_each(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("evaluate", run, "--members", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == list(last(run)["members"])


def test_costs_need_no_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    checkpoint = run / "checkpoint.pt"
    away = checkpoint.rename(tmp_path / "away.pt")
    try:
        assert limbeck("evaluate", run, "--cost", "--json", "--device", "cpu") == 0
        told = json.loads(capsys.readouterr().out)
        assert limbeck("evaluate", run, "--members", "--device", "cpu") == 2
        assert "which is not there. Restore" in capsys.readouterr().err
    finally:
        away.rename(checkpoint)
    (parts,) = told["stages"].values()
    leader = next(part for part in parts if part["part"] == "leader")
    assert (told["batch_size"], told["precision"], leader["flops_per_image"]) == (
        64, "float32", 2 * leader["macs_per_image"])


def test_costs_are_told_as_a_table(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("evaluate", run, "--cost", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "FLOPs are twice as many" in shown
    assert [name in shown for name in ("carrier_leader", "sum of parts", "one step, measured whole")] == [True] * 3


def test_a_cost_on_other_data_is_refused(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("evaluate", run, "--cost", "--data", "digits") == 2
    assert "Leave it out" in capsys.readouterr().err
