"""Reading weights in every container they are published in, and saying what is wrong with the others."""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.networks import build
from limbeck.networks.checkpoints import load_into, read_state


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build("digits_small", 10).state_dict()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: x for name, x in state.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


CONTAINERS = {
    "bare, as of ReviewKD and DistPro": lambda s: s,
    "RepDistiller, epoch 240": lambda s: {"epoch": 240, "model": s, "accuracy": torch.tensor(75.6),
                                          "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4, "params": [0]}]}},
    "RepDistiller, last, with its arguments": lambda s: {"opt": argparse.Namespace(lr=0.05, steps=[150]), "model": s},
    "mdistiller student, with NumPy's numbers": lambda s: {"model": s, "best_acc": np.float64(7), "x": np.float32(1)},
    "ReviewKD student": lambda s: prefixed("student.", s) | {"abfs.0.conv1.0.weight": torch.ones(1)},
    "ReviewKD student on several GPUs": lambda s: prefixed("module.", prefixed("student.", s)
                                                           | {"abfs.0.conv1.0.weight": torch.ones(1)}),
    "FFSD leader": lambda s: {"weight": s | {"trans_fusion_module.0.weight": torch.ones(1)}, "epoch": 3, "cfg": None,
                              "index": 0},
    "DataParallel": lambda s: {"state_dict": prefixed("module.", s)},
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_published_containers_give_the_plain_weights(container, zipped, state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(CONTAINERS[container](state), path, _use_new_zipfile_serialization=zipped)
    assert same(read_state(path), state)


def test_safetensors_are_known_by_their_suffix(state, tmp_path):
    save_file(state, tmp_path / "network.safetensors")
    assert same(OrderedDict(sorted(read_state(tmp_path / "network.safetensors").items())),
                OrderedDict(sorted(state.items())))


def test_a_network_whose_only_layer_is_named_weight_is_no_container(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "linear.pth")
    assert set(read_state(tmp_path / "linear.pth")) == {"weight", "bias"}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Mistake, match=rf"there is none at {re.escape(str(tmp_path / 'no.pth'))}\. Check the path"):
        read_state(tmp_path / "no.pth")
    with pytest.raises(Mistake, match="there is none at"):
        read_state(tmp_path)


def broken(kind: str, path: Path) -> None:
    torch.save({"model": build("digits_small", 10).state_dict()}, path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:len(whole) // 2], "empty": b"", "text": b"not a checkpoint at all",
                      "plain pickle": pickle.dumps({"model": 1}), "a page": b"<!DOCTYPE html><html></html>"}[kind])


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "plain pickle", "a page"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_broken_file_is_named_and_explained(kind, suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    broken(kind, path)
    with pytest.raises(Mistake, match=rf"{re.escape(str(path))} should be a .* cannot be read.*truncated.*fetch it"):
        read_state(path)


def test_objects_are_never_built_from_a_file(tmp_path):
    torch.save({"model": build("digits_small", 10)}, tmp_path / "module.pth")
    with pytest.raises(Mistake, match=r"holds a limbeck\.networks\.staged\.Staged, which could run code .* Save"):
        read_state(tmp_path / "module.pth")


@pytest.mark.parametrize(("held", "found"), [
    ({"epoch": 3, "model": 5}, r"a dict with the keys \['epoch', 'model'\]"), ([1, 2], "a list"),
    ({}, r"a dict with the keys \[\]"), ({"model": {"lr": 0.1}}, r"a dict with the keys \['model'\]")])
def test_a_file_without_weights_says_what_it_holds(held, found, tmp_path):
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(Mistake, match=rf"should hold weights.*; it holds {found}.* Save"):
        read_state(tmp_path / "other.pth")


def test_weights_are_loaded_by_name(state):
    network = build("digits_small", 10)
    load_into(network, dict(reversed(state.items())), "a file")
    assert same(network.state_dict(), state)


def test_files_of_very_old_pytorch_lack_the_count_of_batches(state):
    old = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    network = build("digits_small", 10)
    load_into(network, old, "an old file")
    assert same(network.state_dict(), state)


def test_names_that_do_not_match_are_shown(state):
    state["surplus.weight"] = state.pop("stage3.conv.weight")
    del state["fc.bias"]
    with pytest.raises(Mistake, match=(r"needs weights for its 26 names; teacher\.pth lacks 'stage3\.conv\.weight', "
                                       r"'fc\.bias'; teacher\.pth has 'surplus\.weight', which the network has not\. "
                                       "Name the network")):
        load_into(build("digits_small", 10), state, "teacher.pth")


def test_many_names_are_counted(state):
    with pytest.raises(Mistake, match=r"lacks 'conv1\.weight', 'bn1\.weight', 'bn1\.bias' and \d+ more; "):
        load_into(build("resnet8", 10), state, "teacher.pth")


def test_another_number_of_classes_is_said_in_classes(state):
    with pytest.raises(Mistake, match=(r"needs a classifier of 100 classes; teacher\.pth has one of 10\. "
                                       "Build the network with num_classes=10")):
        load_into(build("digits_small", 100), state, "teacher.pth")


def test_another_width_is_said_in_shapes(state):
    network = build("digits_large", 10)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    with pytest.raises(Mistake, match=(r"needs 'stem\.conv\.weight' of shape \(32, 3, 3, 3\); teacher\.pth has "
                                       r"\(8, 3, 3, 3\)\. Name the network")):
        load_into(network, state, "teacher.pth")
    assert same(network.state_dict(), before)
