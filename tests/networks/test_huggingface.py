"""Image classifiers of Hugging Face, from tiny configurations made here; skipped where the extra `hf` is absent."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.config import NetworkSettings
from limbeck.contract.trial import split
from limbeck.data import Augmentation, Data
from limbeck.errors import Mistake
from limbeck.sources import check_network, describe, open_network
from limbeck.sources.known import known_classes
from limbeck.sources.origins import origin_of
from limbeck.tasks.classification import Classification

ABSENT = importlib.util.find_spec("transformers") is None
needs_it = pytest.mark.skipif(ABSENT, reason="transformers is not installed: pip install 'limbeck[hf]'")

PATCHES = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
           "intermediate_size": 32}
KINDS: dict[str, dict[str, Any]] = {
    "ViT": PATCHES, "DeiT": PATCHES,
    "ResNet": {"embedding_size": 8, "hidden_sizes": [12, 16, 24, 40], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    "Swin": {"image_size": 32, "patch_size": 2, "embed_dim": 12, "depths": [1, 1, 1], "num_heads": [1, 2, 2],
             "window_size": 4},
    "ConvNext": {"hidden_sizes": [12, 16, 24, 40], "depths": [1, 1, 1, 1], "image_size": 32}}
SHAPES = {"ViT": [(16, 4, 4)] * 4, "DeiT": [(16, 4, 4)] * 4, "Swin": [(24, 8, 8), (48, 4, 4), (48, 4, 4)],
          "ResNet": [(12, 8, 8), (16, 4, 4), (24, 2, 2), (40, 1, 1)],
          "ConvNext": [(12, 8, 8), (16, 4, 4), (24, 2, 2), (40, 1, 1)]}


def saved(folder: Path, kind: str, *, weights: bool = False, processor: bool = True, **more: Any) -> Path:
    """A folder as `save_pretrained` writes it."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**KINDS[kind] | more)
    if weights:
        torch.manual_seed(0)
        getattr(transformers, f"{kind}ForImageClassification")._from_config(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    if processor:
        about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def data(classes: tuple[str, ...] = tuple("abcd")) -> Data:
    images = split(8)
    return Data("random", classes, images, images, Augmentation())


def settings(folder: Path, **more: Any) -> NetworkSettings:
    return NetworkSettings(name=f"hf:{folder}", **more)


@needs_it
@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_found(kind: str, tmp_path: Path) -> None:
    network = open_network(settings(saved(tmp_path, kind)), data())
    assert (network.size, network.resize, network.num_classes) == ((3, 32, 32), True, 4)
    assert network.statistics.mean == (0.5, 0.4, 0.3)
    assert [network.shape(stage) for stage in network.stages] == SHAPES[kind]
    assert network.of_tokens == (kind in ("ViT", "DeiT", "Swin"))
    network.tap(["pooled", *(["cls"] if kind in ("ViT", "DeiT") else [])])
    outputs = network.train().read(torch.rand(2, 3, 16, 16))
    sum(x.square().mean() for x in outputs.values()).backward()
    assert outputs["logits"].shape == (2, 4)
    assert len(network.fresh(1).stages) == len(network.stages)


@needs_it
def test_a_size_of_its_own_is_built_for_and_has_no_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path, "ViT", weights=True)
    network = open_network(settings(folder, size=16), data())
    assert (network.size, network.resize) == ((3, 16, 16), False)
    assert network.shape("stage1") == (16, 2, 2)
    with pytest.raises(Mistake, match="no weights for images of 16 pixels"):
        open_network(settings(folder, size=16, weights="pretrained"), data())


@needs_it
def test_without_a_processor_statistics_are_the_datas(tmp_path: Path) -> None:
    network = open_network(settings(saved(tmp_path, "ResNet", processor=False)), data())
    assert network.statistics.mean == pytest.approx(data().statistics[0])
    assert (network.size, network.resize) == ((3, 16, 16), False)


@needs_it
def test_own_weights_are_loaded_and_another_head_is_drawn_anew(tmp_path: Path) -> None:
    names = {0: "b", 1: "tench, Tinca tinca", 2: "a"}
    folder = saved(tmp_path, "ResNet", weights=True, num_labels=3, id2label=names)
    assert known_classes(settings(folder, weights="pretrained")) == [
        ("b",), ("tench, Tinca tinca", "tench", "Tinca tinca"), ("a",)]
    said: list[str] = []
    teacher = open_network(settings(folder, weights="pretrained"), data(("a", "tench")), finished=True, say=said.append)
    other = open_network(settings(folder, weights="pretrained"), data())
    assert "matched by name" in said[-1]
    assert (teacher.num_classes, other.num_classes) == (2, 4)
    for one in (teacher, other):
        own = {key: x for key, x in one.module.state_dict().items() if "classifier" not in key}
        fresh = origin_of(f"hf:{folder}", 3).build().state_dict()
        assert not any(torch.equal(x, fresh[key]) for key, x in own.items() if x.ndim == 4)
    same = {key for key, x in teacher.module.state_dict().items() if torch.equal(x, other.module.state_dict()[key])}
    assert same == {key for key in teacher.module.state_dict() if "classifier" not in key}
    teacher.eval()
    logits = teacher.module(teacher.normalise(torch.ones(1, 3, 32, 32))).logits
    assert torch.equal(teacher.logits(torch.ones(1, 3, 32, 32)), logits[:, [2, 1]])


@needs_it
def test_classes_that_only_have_numbers_have_no_names(tmp_path: Path) -> None:
    assert known_classes(settings(saved(tmp_path, "ViT", weights=True), weights="pretrained")) is None


@needs_it
def test_the_head_of_the_class_token_alone_or_with_the_distillation_token(tmp_path: Path) -> None:
    both = saved(tmp_path, "DeiT", architectures=["DeiTForImageClassificationWithTeacher"])
    network = open_network(settings(both), data())
    assert {"logits.class", "logits.distillation"} <= network.addresses.keys()
    assert network.layout("stage1").before == 2  # type: ignore[union-attr]


@needs_it
def test_a_run_says_how_it_is_built_again(tmp_path: Path) -> None:
    network = open_network(settings(saved(tmp_path, "ViT"), size=16), data())
    about = describe(network, tuple("abcd"), Classification())
    again = origin_of(about["name"], 4, about["size"][1]).build()
    assert {key: x.shape for key, x in again.state_dict().items()} == {
        key: x.shape for key, x in network.module.state_dict().items()}
    assert isinstance(network.deployed(), nn.Module)


@needs_it
@pytest.mark.parametrize(("make", "told"), [
    (lambda folder: folder, "folder without a config.json"),
    (lambda folder: folder / "nowhere", "neither a folder nor a repository")])
def test_what_is_no_classifier_is_told(make: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=told):
        check_network(settings(make(tmp_path)))


@needs_it
def test_another_kind_of_network_is_told(tmp_path: Path) -> None:
    import transformers

    transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(Mistake, match=r"an image classifier is needed; .* is of type bert"):
        open_network(settings(tmp_path), data())


def test_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Mistake, match=r"hf:microsoft/resnet-18 needs the package transformers.*limbeck\[hf\]"):
        check_network(NetworkSettings(name="hf:microsoft/resnet-18"))
