"""Journeys of someone who ships a student: exported, used by a Python without limbeck, refused with reasons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from journey import QUIET, limbeck
from safetensors.torch import load_file

from limbeck.export.formats import FORMATS
from limbeck.jobs.finished import Finished

pytest.importorskip("onnx", reason="journeys of ONNX files need it; pip install 'limbeck[export]'")
pytest.importorskip("onnxscript", reason="journeys of ONNX files need it; pip install 'limbeck[export]'")
pytest.importorskip("onnxruntime", reason="journeys of ONNX files need it; pip install 'limbeck[export]'")

SMALL = ["--data", "digits", "--set", "data.classes=3", "--set", "data.per_class=20", *QUIET]
PLAIN = """
import json, sys
import numpy as np, torch, timm
from safetensors.torch import load_file

about = json.load(open("student.json"))
network = eval(about["build"]).eval()
network.load_state_dict(load_file("student.safetensors"), strict=True)
mean, std = (torch.tensor(about[key]).view(3, 1, 1) for key in ("mean", "std"))
images = torch.from_numpy(np.load("images.npy"))
if about["resize"]:
    images = torch.nn.functional.interpolate(images, about["size"][1:], mode="bilinear", antialias=True)
np.save("plain.npy", network((images - mean) / std).detach().numpy())
assert "limbeck" not in sys.modules
"""
ONNX = """
import sys
import numpy as np, onnxruntime

images = np.load("images.npy")
session = onnxruntime.InferenceSession("student.onnx", providers=["CPUExecutionProvider"])
np.save("onnx.npy", session.run(None, {"images": images})[0])
assert "limbeck" not in sys.modules and "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    assert limbeck("train", "--run", folder, *SMALL, "--network", "digits_large", "--epochs", "1") == 0
    return folder


@pytest.fixture(scope="module")
def run(teacher: Path) -> Path:
    """A timm student that looks at digits four times as large."""
    folder = teacher.parent / "student"
    assert limbeck("distill", "--run", folder, *SMALL, "--method", "kd", "--teacher", teacher, "--student",
                   "timm:test_resnet", "--set", "student.size=32", "--set", "training.check_teacher=false",
                   "--epochs", "1") == 0
    return folder


@pytest.fixture(scope="module")
def told(run: Path) -> str:
    """What the export of everything says; the files are in the run's folder."""
    import io
    from contextlib import redirect_stdout

    with redirect_stdout(io.StringIO()) as out:
        assert limbeck("export", run, "--int8") == 0
    return out.getvalue()


def test_the_student_ships_in_every_format_and_its_costs_are_told(run: Path, told: str) -> None:
    names = ["student.int8.onnx", "student.json", "student.onnx", "student.pt2", "student.safetensors"]
    assert sorted(path.name for path in (run / "export").iterdir()) == names
    found = json.loads((run / "export.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert list(rows) == ["teacher", "student", "student.safetensors", "student.onnx", "student.pt2",
                          "student.int8.onnx"]
    assert rows["teacher"]["parameters"] > 90_000
    assert rows["student"]["parameters"] == json.loads((run / "result.json").read_text())["student_parameters"]
    assert rows["student"]["macs_per_image"] > 1e6
    assert all(row["latency_ms"] > 0 for row in rows.values())
    for name in names[2:]:
        assert rows[name]["bytes"] == (run / "export" / name).stat().st_size
        assert rows[name]["largest_difference"] < 1e-4
    assert rows["student.int8.onnx"]["bytes"] < rows["student.onnx"]["bytes"] / 2
    last = json.loads((run / "result.json").read_text())["test"]["last"]["top1"]
    assert rows["student.onnx"]["score"] == pytest.approx(last)
    assert rows["student.int8.onnx"]["score"] == pytest.approx(last, abs=10)
    assert found["threads"] == torch.get_num_threads()
    assert "1 thread: median of warm runs" in told
    assert [line.split()[0] for line in told.splitlines()[2:-1]] == list(rows)


def test_files_are_used_by_a_python_without_limbeck(run: Path, told: str, tmp_path: Path) -> None:
    work = Path(shutil.copytree(run / "export", tmp_path / "work"))
    finished = Finished.reopen(run, device="cpu")
    images = next(finished.test().epoch(0)).images[:5]
    expected = finished.network.eval().logits(images).detach().numpy()
    np.save(work / "images.npy", images.numpy())
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for code, result in ((PLAIN, "plain.npy"), (ONNX, "onnx.npy")):
        subprocess.run([sys.executable, "-c", code], cwd=work, env=plain, check=True, timeout=900)
        np.testing.assert_allclose(np.load(work / result), expected, atol=1e-5)


def test_the_same_network_is_written_anew_and_another_one_is_not(
        run: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    words = ["--to", "safetensors", "--out", out]
    assert limbeck("export", teacher, *words) == 0
    assert limbeck("export", teacher, *words) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert json.loads((teacher / "export.json").read_text())["folder"] == str(out)
    capsys.readouterr()
    assert limbeck("export", run, *words) == 2
    assert "holds student.safetensors of another network" in capsys.readouterr().err
    (out / "student.json").unlink()
    assert limbeck("export", teacher, *words) == 2
    assert "or of one that is not known. Give another folder with --out" in capsys.readouterr().err
    assert (out / "student.safetensors").read_bytes() == before[out / "student.safetensors"]
    load_file(out / "student.safetensors")


def test_a_file_that_does_not_agree_is_not_kept(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(path: Path, shipment: object) -> object:
        assert path.is_file()
        return lambda images: torch.zeros(len(images), 3)

    monkeypatch.setitem(FORMATS, "pt2", FORMATS["pt2"].__class__(**{**vars(FORMATS["pt2"]), "opened": wrong}))
    assert limbeck("export", teacher, "--to", "safetensors,pt2", "--out", tmp_path) == 2
    assert "student.pt2 must answer as digits_large does" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "student.json", "student.safetensors"]


def test_a_teacher_that_is_gone_is_left_out_of_the_table(
        run: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    away = teacher.rename(tmp_path / "away")
    try:
        assert limbeck("export", run, "--to", "safetensors", "--out", tmp_path / "out") == 0
    finally:
        away.rename(teacher)
    said = capsys.readouterr().out
    assert "the teacher is not in the table: " in said
    assert [line.split()[0] for line in said.splitlines()[2:4]] == ["student", "student.safetensors"]


@pytest.mark.parametrize(("words", "said"), [
    (["--to", "onyx"], "there is no format 'onyx' to export to; closest: ['onnx']"),
    (["--to", "pt2", "--int8"], "--int8 quantises the ONNX file; got --to pt2. Add onnx to --to"),
    (["--to", "pt2", "--out", "TEACHER/config.yaml/x"], "config.yaml is no folder")])
def test_what_cannot_be_exported_is_answered(words: list[str], said: str, teacher: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    assert limbeck("export", teacher, *(word.replace("TEACHER", str(teacher)) for word in words)) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_not_finished_ships_nothing_and_all_mistakes_come_at_once(
        teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(teacher / "config.yaml", tmp_path)
    assert limbeck("export", tmp_path, "--to", "pt2") == 2
    assert "is not finished, and ships nothing yet. `limbeck resume" in capsys.readouterr().err
    assert limbeck("export", tmp_path / "nowhere", "--to", "pt3") == 2
    said = capsys.readouterr().err
    assert "there is no format 'pt3'" in said
    assert "is no run: it holds no config.yaml" in said
