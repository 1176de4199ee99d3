"""Journeys with networks that learn together: trained, everyone scored, costs told, from the run's folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journey import limbeck
from safetensors.torch import load_file

from limbeck.evaluation.groups import SIMILARITY
from limbeck.networks import build
from limbeck.training.checkpoints import load_shared

SMALL = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=40", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FFSD on three digits, two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "ffsd"
    assert limbeck("distill", "--run", folder, *SMALL, "--student", "digits_small", "--method", "ffsd", "--epochs",
                   "2", "--precision", "float32") == 0
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


def test_a_teacher_beside_peers_each_with_its_own_optimiser_schedule_and_rate(tmp_path: Path) -> None:
    """From configuration alone: a frozen teacher, a peer of another architecture, an optimiser for everyone."""
    teacher, folder = tmp_path / "teacher", tmp_path / "mix"
    assert limbeck("train", "--run", teacher, *SMALL, "--network", "digits_large", "--epochs", "3") == 0
    sets = ["networks.peers=[digits_large, digits_small]", "method.kd.temperature=2", "method.dml.share=sum",
            "optimizer.lr=0.02", "optimizers.peer1={name: adamw, lr: 0.003, weight_decay: 0.01}",
            "optimizers.peer2={lr: 0.1, momentum: 0.5, schedule: {kind: cosine}}", "schedule.drops=[0.5]"]
    assert limbeck("distill", "--run", folder, *SMALL, "--student", "digits_small", "--teacher", teacher, "--method",
                   "kd+dml", "--epochs", "2", *(word for text in sets for word in ("--set", text))) == 0
    state = load_shared(folder / "checkpoint.pt")
    groups = {group["owner"]: group for part in state["optimizer"]["parts"] for group in part["param_groups"]}
    assert {name: group["base_lr"] for name, group in groups.items()} == {"student": 0.02, "peer1": 0.003, "peer2": 0.1}
    assert ("betas" in groups["peer1"], groups["peer2"]["momentum"]) == (True, 0.5)
    assert groups["student"]["lr"] == pytest.approx(0.002)
    assert groups["peer1"]["lr"] == pytest.approx(0.0003)
    assert 0.002 < groups["peer2"]["lr"] < 0.1
    assert list(state["frozen"]) == ["teacher"]
    assert last(folder)["together"] == ["student", "peer1", "peer2"]
    build("digits_small", 3).load_state_dict(load_file(folder / "student.safetensors"))


def test_a_run_whose_teacher_was_cached_is_rebuilt_with_one_that_computes(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--student", "digits_small", "--teacher", run, "--method", "kd+dml", "--epochs", "1"]
    sets = ["--set", "training.check_teacher=false", "--set", f"cache.folder={tmp_path / 'stored'}"]
    assert limbeck("distill", "--run", tmp_path / "mix", *SMALL, *words, *sets) == 0
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "stored").rglob("*")}
    capsys.readouterr()
    assert limbeck("evaluate", tmp_path / "mix", "--cost", "--json", "--device", "cpu") == 0
    (parts,) = json.loads(capsys.readouterr().out)["stages"].values()
    teacher = next(part for part in parts if part["part"] == "teacher")
    student = next(part for part in parts if part["part"] == "student")
    assert (teacher["kind"], teacher["macs_per_image"]) == ("frozen", student["macs_per_image"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "stored").rglob("*")} == stored


def test_a_teacher_beside_ffsd_teaches_what_ships(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mix"
    assert limbeck("distill", "--run", folder, *SMALL, "--student", "digits_small", "--teacher", run, "--method",
                   "kd+ffsd", "--epochs", "1", "--set", "training.check_teacher=false") == 0
    assert set(last(folder)["members"]) >= {"leader", "student1", "student2", "fusion", "ensemble"}
    build("digits_small", 3).load_state_dict(load_file(folder / "student.safetensors"))
