"""A run's folder: claimed by one job, records cut to a checkpoint, weights that load anywhere."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from core_tiny import Residual, batch, network
from safetensors.torch import load_file

from limbeck.config import read_job
from limbeck.errors import Mistake
from limbeck.runs import Run, about, commit

LEAST = {"data": "digits", "student": "digits_small"}


@pytest.fixture
def run(tmp_path) -> Run:
    found = Run(tmp_path / "run")
    found.start(read_job(None, LEAST))
    return found


def test_a_folder_is_claimed_with_the_whole_job(run):
    job = read_job(None, LEAST)
    assert run.job() == job
    run.start(job)  # the same job goes on
    assert [path.name for path in run.folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(("changes", "differences"), [
    ({"training.epochs": 3}, r"\(they differ in training\.epochs\)"),
    ({"teacher": "resnet8"}, r"\(they differ in teacher\)"),
    ({"seed": 4, "optimizers.review.lr": 0.3, "method": "kd"},
     r"\(they differ in method\.name, optimizers\.review, seed\)"),
    ({"method": "none", "method.smooth": 2, "schedule.drops": [0.5]},
     r"\(they differ in method\.smooth, schedule\.drops\)"),
])
def test_another_job_is_refused_with_what_differs(run, changes, differences):
    before = run.config.read_text()
    with pytest.raises(Mistake, match=rf"holds a run with other settings {differences}.*Choose another --run"):
        run.start(read_job(None, {**LEAST, **changes}))
    assert run.config.read_text() == before


def test_a_run_of_before_a_setting_was_there_is_the_same_job(run):
    text = run.config.read_text()
    assert "  check_teacher: true\n" in text
    run.config.write_text(text.replace("  check_teacher: true\n", ""))
    assert run.holds(read_job(None, LEAST))
    assert not run.finished
    with pytest.raises(Mistake, match=r"differ in training\.check_teacher"):
        run.start(read_job(None, {**LEAST, "training.check_teacher": False}))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(Mistake, match="is not empty and holds no run"):
        Run(tmp_path).start(read_job(None, LEAST))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    Run(tmp_path / "empty").start(read_job(None, LEAST))


def test_a_full_disk_claims_nothing(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Mistake, match="the disk is full"):
        Run(tmp_path / "run").start(read_job(None, LEAST))
    monkeypatch.undo()
    Run(tmp_path / "run").start(read_job(None, LEAST))


def test_a_folder_without_a_run_has_no_job(tmp_path):
    with pytest.raises(Mistake, match=r"is no run: it holds no config\.yaml"):
        Run(tmp_path).job()


def test_a_damaged_configuration_is_a_mistake(run):
    for content in ("data: [", "- 1", "", "data: digits\nstudent: x\nunknown: 3"):
        run.config.write_text(content)
        with pytest.raises(Mistake):
            run.job()
    run.config.write_text("data: [")
    with pytest.raises(Mistake, match=r"config\.yaml is not valid YAML"):
        run.start(read_job(None, LEAST))


# --- records


def test_records_are_added_and_read(run):
    assert run.records() == []
    for step in range(3):
        run.add_record({"step": step, "loss": float("nan") if step == 1 else 0.5})
    records = run.records()
    assert [record["step"] for record in records] == [0, 1, 2]
    assert records[1]["loss"] != records[1]["loss"]


@pytest.mark.parametrize(("count", "kept"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_records_after_a_checkpoint_are_cut(run, count, kept):
    for step in range(3):
        run.add_record({"step": step})
    run.cut_records(count)
    assert [record["step"] for record in run.records()] == kept
    run.add_record({"step": 7})
    assert [record["step"] for record in run.records()] == [*kept, 7]


def test_a_half_written_record_is_left_out_and_cut(run):
    run.add_record({"step": 0})
    with run.metrics.open("a") as file:
        file.write('{"step": 1, "lo')
    assert run.records() == [{"step": 0}]
    run.cut_records(2)
    assert run.metrics.read_text() == '{"step": 0}\n'


def test_a_full_disk_is_told_when_a_record_is_added(run, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(Mistake, match=r"metrics\.jsonl could not be written: the disk is full"):
        run.add_record({"step": 0})


# --- small records and weights


def test_small_records_come_back(run):
    assert run.read_json("about.json") == {}
    run.write_json("about.json", {"verb": "train", "name": "größer"})
    assert run.read_json("about.json") == {"verb": "train", "name": "größer"}
    (run.folder / "about.json").write_text("{")
    with pytest.raises(Mistake, match=r"about\.json cannot be read as JSON"):
        run.read_json("about.json")


def test_a_run_is_finished_with_its_result(run):
    assert not run.finished
    run.write_json("result.json", {})
    assert run.finished


def test_weights_are_those_of_the_plain_network(run):
    member = network(Residual())
    member.tap(["stage1.pre"])
    member.module.layer2[0].beside.weight = torch.nn.Parameter(member.module.layer2[0].beside.weight.transpose(0, 1))
    run.save_weights(member)
    run.save_weights(member, best=True)
    plain = Residual()
    plain.load_state_dict(load_file(run.weights))
    images = batch().images
    assert torch.equal(plain.eval()(member.normalise(images)), member.eval().logits(images))
    assert load_file(run.folder / "best.safetensors").keys() == plain.state_dict().keys()


def test_tied_weights_are_saved_too(run):
    module = Residual()
    module.layer1[0].bn2 = module.layer1[0].bn1
    run.save_weights(network(module))
    twin = Residual()
    twin.layer1[0].bn2 = twin.layer1[0].bn1
    twin.load_state_dict(load_file(run.weights))


def test_what_a_record_says_of_its_making():
    found = about(seed=3)
    assert {"limbeck", "torch", "python", "commit", "device", "cores", "command", "seed"} == found.keys()
    assert json.loads(json.dumps(found)) == found
    assert commit() is None or len(commit().rstrip("+")) == 12
