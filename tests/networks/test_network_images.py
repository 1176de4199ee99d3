"""What images a network gets: the size that it is built for, the data's own, or resized; its statistics; its head."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from limbeck.config import NetworkSettings
from limbeck.contract.trial import split
from limbeck.data import Augmentation, Data
from limbeck.errors import Mistake
from limbeck.sources import open_network, untrained
from limbeck.sources.origins import check, origin_of

IMAGES = split(4)
DATA = Data("random", tuple("abcd"), IMAGES, IMAGES, Augmentation())


@pytest.mark.parametrize(("name", "size", "seen", "resized"), [
    ("timm:test_vit", None, 160, True), ("timm:test_vit", 32, 32, True), ("timm:test_vit", 16, 16, False),
    ("timm:test_efficientnet", None, 16, False), ("timm:test_efficientnet", 32, 32, True),
    ("distilled:timm:test_vit", 32, 32, True), ("torchvision:mobilenet_v3_small", 32, 32, True),
    ("resnet8", None, 16, False)])
def test_networks_of_one_size_are_built_for_it_or_get_resized_images(name, size, seen, resized) -> None:
    said: list[str] = []
    network = open_network(NetworkSettings(name=name, size=size), DATA, say=said.append)
    assert (network.size, network.resize) == ((3, seen, seen), resized)
    assert (said != []) == (name == "timm:test_vit" and size is None)
    assert network.eval().logits(torch.rand(1, 3, 16, 16)).shape == (1, 4)
    assert network.fresh(0).size == network.size


def test_resizing_is_said() -> None:
    said: list[str] = []
    open_network(NetworkSettings(name="timm:test_vit"), DATA, say=said.append)
    assert said == ["timm:test_vit takes images of 160 x 160 pixels alone: those of 16 x 16 are resized. Its setting "
                    "`size` builds it for others."]


def test_what_cannot_be_built_for_a_size_is_told() -> None:
    with pytest.raises(Mistake, match="timm:test_vit takes images of one size alone, and cannot be built for -16"):
        origin_of("timm:test_vit", 4, -16).build()


def test_what_cannot_look_at_images_this_small_is_told() -> None:
    with pytest.raises(Mistake, match=r"torchvision:alexnet cannot look at images of 16 x 16 .*Set its `size`"):
        open_network(NetworkSettings(name="torchvision:alexnet"), DATA)


def test_a_transformer_of_torchvision_is_built_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: asked.update(options, name=name))
    own, other = origin_of("torchvision:vit_b_16", 4), origin_of("torchvision:vit_b_16", 4, 32)
    other.build()
    assert (asked["image_size"], asked["num_classes"]) == (32, 4)
    assert (own.fixed_size, other.fixed_size) == (224, 32)
    assert other.pretrained is None
    assert own.pretrained is not None


def test_torchvisions_weights_under_a_head_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    make = torchvision.models.get_model
    trained = make("mobilenet_v3_small", weights=None)
    monkeypatch.setattr(torchvision.models, "get_model",
                        lambda name, weights=None, **more: trained if weights else make(name, weights=weights, **more))
    module = open_network(NetworkSettings(name="torchvision:mobilenet_v3_small", weights="pretrained"), DATA).module
    own, theirs = module.state_dict(), trained.state_dict()
    assert [key for key in own if own[key].shape != theirs[key].shape] == ["classifier.3.weight", "classifier.3.bias"]
    assert all(torch.equal(own[key], theirs[key]) for key in own if not key.startswith("classifier.3"))


@pytest.mark.parametrize("name", [
    "distilled:timm:resnet18", "distilled:resnet8", "distilled:timm:deit_tiny_distilled_patch16_224"])
def test_a_distillation_token_is_for_transformers_of_timm_without_one(name: str) -> None:
    check(name)
    with pytest.raises(Mistake, match="a distillation token is given to"):
        origin_of(name, 4).build()


@pytest.mark.parametrize("name", ["distilled:timm:resnet1888", "nowhere:resnet18", "timm:", "hf:", "distilled:"])
def test_unknown_names_are_told(name: str) -> None:
    with pytest.raises(Mistake, match=r"closest|a network is NAME|there is"):
        check(name)


def test_without_data_a_network_is_seen_at_its_size() -> None:
    assert untrained("timm:test_vit").size == (3, 160, 160)
    assert untrained("timm:test_vit", 32).size == (3, 32, 32)
    assert untrained("resnet8").size == (3, 32, 32)
    assert untrained("timm:test_vit", 32, classes=7).num_classes == 7
    assert untrained("timm:test_vit").statistics.mean == tuple(timm.get_pretrained_cfg("test_vit").mean)
