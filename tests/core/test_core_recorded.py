"""The process file: what goes in comes out, and anything else is refused with its path."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from limbeck.errors import Mistake
from limbeck.process import biased_softmax
from limbeck.process.recorded import Recorded


@pytest.fixture
def recorded() -> Recorded:
    raw = torch.randn(5, 2, dtype=torch.float64)
    return Recorded(("t1>s1/c2", "t2>s1/c2"), raw, biased_softmax(raw), "biased-softmax", 2.0, ("ce",),
                    {"seed": 3, "networks": {"student": "tiny"}, "drops": [0.25, 0.5]})


def test_a_saved_process_comes_back(recorded, tmp_path):
    path = tmp_path / "new" / "process.safetensors"
    recorded.save(path)
    found = Recorded.load(path)
    assert (found.names, found.normaliser, found.scale, found.fixed) == (
        recorded.names, recorded.normaliser, recorded.scale, recorded.fixed)
    assert found.found == recorded.found
    assert torch.equal(found.raw, recorded.raw.float())
    assert torch.equal(found.weights, recorded.weights.float())


def test_the_header_can_be_read_without_us(recorded, tmp_path):
    recorded.save(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", "pt") as file:
        header = json.loads(file.metadata()["limbeck"])
    assert header["names"] == list(recorded.names)
    assert header["normaliser"] == "biased-softmax"


def test_a_column_of_a_larger_tensor_is_saved(tmp_path):
    raw = torch.randn(4, 6)[:, ::3]
    Recorded(("a", "b"), raw, raw, "l1", 1.0).save(tmp_path / "p.safetensors")
    assert torch.equal(Recorded.load(tmp_path / "p.safetensors").raw, raw)


def test_a_missing_file_is_a_mistake_that_says_how_to_make_one(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(Mistake, match=f"there is none at {path}. Make one with `limbeck search`"):
            Recorded.load(path)


@pytest.mark.parametrize("part", [0, 4, 40, 0.5, 0.999])
def test_a_truncated_file_is_a_mistake(recorded, tmp_path, part):
    path = tmp_path / "p.safetensors"
    recorded.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:part if part > 1 or part == 0 else int(part * len(content))])
    with pytest.raises(Mistake, match=r"p\.safetensors cannot be read as a process file .*Search again"):
        Recorded.load(path)


@pytest.mark.parametrize("metadata", [None, {"limbeck": "{}"}, {"limbeck": '{"format": "limbeck-process-0"}'},
                                      {"limbeck": "[1]"}, {"limbeck": '"text"'}])
def test_another_safetensors_file_is_a_mistake(tmp_path, metadata):
    path = tmp_path / "student.safetensors"
    save_file({"raw": torch.ones(1, 1), "weights": torch.ones(1, 1)}, path, metadata)
    with pytest.raises(Mistake, match="is not a process file of this version"):
        Recorded.load(path)


def test_a_file_without_its_tensors_is_a_mistake(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"raw": torch.ones(1, 1)}, path, {"limbeck": '{"format": "limbeck-process-1"}'})
    with pytest.raises(Mistake, match="is not a process file of this version"):
        Recorded.load(path)


def test_a_header_that_is_no_json_is_a_mistake(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"raw": torch.ones(1, 1)}, path, {"limbeck": "{"})
    with pytest.raises(Mistake, match="cannot be read as a process file"):
        Recorded.load(path)


def test_a_uniform_record_is_one_row_of_ones():
    found = Recorded.uniform(("a", "b"), "l1")
    assert (found.names, found.normaliser, found.scale) == (("a", "b"), "l1", 2.0)
    assert found.raw.tolist() == [[1, 1]]
    assert found.weights.tolist() == [[0.5, 0.5]]
