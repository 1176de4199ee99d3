"""A second, plainer formulation of each network gives the same outputs from the same file of weights.

Each function below takes a state dict, by the published names, and computes what specs/models.md sections 2 and 4 say
with functional calls alone. It stands for the libraries in which the published checkpoints were trained.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from limbeck.networks import build
from limbeck.networks.checkpoints import load_into, read_state

State = dict[str, Tensor]
Outputs = dict[str, Tensor]


def conv(x: Tensor, s: State, name: str, stride: int = 1, groups: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s.get(f"{name}.bias"), stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def bn(x: Tensor, s: State, name: str) -> Tensor:
    mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"], training=False)


def classify(x: Tensor, s: State, name: str, outputs: Outputs) -> Outputs:
    outputs["pooled"] = x.flatten(1)
    outputs["logits"] = outputs["pooled"] @ s[f"{name}.weight"].t() + s[f"{name}.bias"]
    return outputs


def blocks(s: State, prefix: str) -> range:
    """The numbers that follow a prefix in the names of the weights."""
    return range(1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in s if key.startswith(prefix)))


def shuffle(x: Tensor, groups: int) -> Tensor:
    c = x.shape[1]
    return x[:, [group * (c // groups) + place for place in range(c // groups) for group in range(groups)]]


def resnet(x: Tensor, s: State) -> Outputs:
    x = F.relu(bn(conv(x, s, "conv1"), s, "bn1"))
    outputs = {"stem": x}
    projection, classifier = ("downsample", "fc") if "fc.weight" in s else ("shortcut", "linear")
    for stage in range(1, 4 if classifier == "fc" else 5):
        for i in blocks(s, f"layer{stage}."):
            here, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            deep = f"{here}.conv3.weight" in s
            y = F.relu(bn(conv(x, s, f"{here}.conv1", 1 if deep else stride), s, f"{here}.bn1"))
            y = bn(conv(y, s, f"{here}.conv2", stride if deep else 1), s, f"{here}.bn2")
            if deep:
                y = bn(conv(F.relu(y), s, f"{here}.conv3"), s, f"{here}.bn3")
            if f"{here}.{projection}.0.weight" in s:
                x = bn(conv(x, s, f"{here}.{projection}.0", stride), s, f"{here}.{projection}.1")
            outputs[f"stage{stage}.pre"] = x + y
            x = outputs[f"stage{stage}"] = F.relu(x + y)
    return classify(F.avg_pool2d(x, x.shape[-1]), s, classifier, outputs)


def wrn(x: Tensor, s: State) -> Outputs:
    x = conv(x, s, "conv1")
    outputs = {"stem": x}
    norms = ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"]
    for stage in (1, 2, 3):
        for i in blocks(s, f"block{stage}.layer."):
            here, stride = f"block{stage}.layer.{i}", 2 if stage > 1 and i == 0 else 1
            active = F.relu(bn(x, s, f"{here}.bn1"))
            y = conv(F.relu(bn(conv(active, s, f"{here}.conv1", stride), s, f"{here}.bn2")), s, f"{here}.conv2")
            if f"{here}.convShortcut.weight" in s:
                x = conv(active, s, f"{here}.convShortcut", stride)
            x = x + y
        outputs[f"stage{stage}"] = x
        outputs[f"stage{stage}.pre"] = bn(x, s, norms[stage - 1])
    return classify(F.avg_pool2d(F.relu(bn(x, s, "bn1")), 8), s, "fc", outputs)


def vgg(x: Tensor, s: State) -> Outputs:
    outputs: Outputs = {}
    for block in range(5):
        for i in range(0, len(blocks(s, f"block{block}.")), 3):
            before = bn(conv(x, s, f"block{block}.{i}"), s, f"block{block}.{i + 1}")
            x = F.relu(before)
        outputs[f"stage{block}"], outputs[f"stage{block}.pre"] = x, before
        if block < 3:
            x = F.max_pool2d(x, 2)
    outputs["stem"] = outputs.pop("stage0")
    del outputs["stage0.pre"]
    return classify(x.mean((2, 3)), s, "classifier", outputs)


def mobilenetv2(x: Tensor, s: State) -> Outputs:
    x = F.relu(bn(conv(x, s, "conv1.0", 2), s, "conv1.1"))
    outputs = {"stem": x}
    ends = {1: "stage1", 2: "stage2", 4: "stage3", 6: "stage4"}
    for group, stride in enumerate((1, 1, 2, 2, 1, 2, 1)):
        for i in blocks(s, f"blocks.{group}."):
            here = f"blocks.{group}.{i}.conv"
            inside = len(s[f"{here}.0.weight"])
            y = F.relu(bn(conv(x, s, f"{here}.0"), s, f"{here}.1"))
            y = F.relu(bn(conv(y, s, f"{here}.3", stride if i == 0 else 1, inside), s, f"{here}.4"))
            y = bn(conv(y, s, f"{here}.6"), s, f"{here}.7")
            x = x + y if x.shape == y.shape else y
        if group in ends:
            outputs[ends[group]] = outputs[f"{ends[group]}.pre"] = x
    x = F.relu(bn(conv(x, s, "conv2.0"), s, "conv2.1"))
    return classify(F.avg_pool2d(x, 2), s, "classifier.0", outputs)


def shufflev1(x: Tensor, s: State) -> Outputs:
    x = F.relu(bn(conv(x, s, "conv1"), s, "bn1"))
    outputs = {"stem": x}
    for stage in (1, 2, 3):
        for i in blocks(s, f"layer{stage}."):
            here, stride = f"layer{stage}.{i}", 2 if i == 0 else 1
            groups = 1 if x.shape[1] == 24 else 3
            y = shuffle(F.relu(bn(conv(x, s, f"{here}.conv1", groups=groups), s, f"{here}.bn1")), groups)
            y = F.relu(bn(conv(y, s, f"{here}.conv2", stride, y.shape[1]), s, f"{here}.bn2"))
            y = bn(conv(y, s, f"{here}.conv3", groups=3), s, f"{here}.bn3")
            before = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if i == 0 else x + y
            x = F.relu(before)
        outputs[f"stage{stage}"], outputs[f"stage{stage}.pre"] = x, before
    return classify(F.avg_pool2d(x, 4), s, "linear", outputs)


def shufflev2(x: Tensor, s: State) -> Outputs:
    x = F.relu(bn(conv(x, s, "conv1"), s, "bn1"))
    outputs = {"stem": x}
    for stage in (1, 2, 3):
        here = f"layer{stage}.0"
        left = bn(conv(x, s, f"{here}.conv1", 2, x.shape[1]), s, f"{here}.bn1")
        left = F.relu(bn(conv(left, s, f"{here}.conv2"), s, f"{here}.bn2"))
        right = F.relu(bn(conv(x, s, f"{here}.conv3"), s, f"{here}.bn3"))
        right = bn(conv(right, s, f"{here}.conv4", 2, right.shape[1]), s, f"{here}.bn4")
        right = F.relu(bn(conv(right, s, f"{here}.conv5"), s, f"{here}.bn5"))
        x = shuffle(torch.cat([left, right], 1), 2)
        for i in blocks(s, f"layer{stage}.")[1:]:
            here, half = f"layer{stage}.{i}", x.shape[1] // 2
            y = F.relu(bn(conv(x[:, half:], s, f"{here}.conv1"), s, f"{here}.bn1"))
            y = bn(conv(y, s, f"{here}.conv2", groups=half), s, f"{here}.bn2")
            y = bn(conv(y, s, f"{here}.conv3"), s, f"{here}.bn3")
            outputs[f"stage{stage}.pre"] = torch.cat([x[:, :half], y], 1)
            x = outputs[f"stage{stage}"] = shuffle(torch.cat([x[:, :half], F.relu(y)], 1), 2)
    x = F.relu(bn(conv(x, s, "conv2"), s, "bn2"))
    return classify(F.avg_pool2d(x, 4), s, "linear", outputs)


def random_state(name: str) -> State:
    """Weights as after some training: no batch norm is at its start."""
    torch.manual_seed(0)
    state = {}
    for key, value in build(name, 10).double().state_dict().items():
        if key.endswith("running_var"):
            value = 0.5 + torch.rand_like(value)
        elif key.endswith("running_mean") or value.dim() == 1:
            value = 0.3 * torch.randn_like(value) + (1 if key.endswith("weight") else 0)
        state[key] = value
    return state


@pytest.mark.parametrize(("name", "plainer"), [
    ("resnet20", resnet), ("resnet8x4", resnet), ("resnet18", resnet), ("resnet50", resnet), ("wrn_16_1", wrn),
    ("wrn_16_2", wrn), ("vgg8", vgg), ("vgg13", vgg), ("mobilenetv2", mobilenetv2), ("shufflev1", shufflev1),
    ("shufflev2", shufflev2)])
def test_a_checkpoint_gives_the_outputs_of_the_plainer_formulation(name, plainer, tmp_path, read):
    state = random_state(name)
    torch.save({"model": state, "epoch": 240}, tmp_path / "ckpt_epoch_240.pth")
    network = build(name, 10).double().eval()
    load_into(network, read_state(tmp_path / "ckpt_epoch_240.pth"), "the file")
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)

    expected, outputs = plainer(images, state), read(network, images)

    assert set(outputs) == set(expected)
    for tap, x in expected.items():
        torch.testing.assert_close(outputs[tap], x, rtol=1e-9, atol=1e-9, msg=lambda m, tap=tap: f"{tap}: {m}")
