"""Twelve families of timm and six networks of torchvision, as student and as teacher: KD, ReviewKD, DistPro searched.

Nothing is learned here: random images, two steps. What counts is that stages are found where they should be, that every
method takes them as they are, that a search moves, and that what ships is the plain network. `docs/networks.md` says
the same as `FAMILIES`, and what else was looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from limbeck.config import MethodSettings
from limbeck.contract.trial import CLASSES, batch, split, trainer
from limbeck.members import STATISTICS, Network
from limbeck.method import Method, Setting
from limbeck.networks import build
from limbeck.tasks.classification import Classification
from limbeck.wiring import build_stages

DOCS = Path(__file__).parents[2] / "docs" / "networks.md"


@dataclass(frozen=True)
class Family:
    """A network, and what is to be found in it.

    Attributes:
        name: As a user calls it.
        strides: Of its stages.
        size: Side of its images.
        options: With which it is built, to be smaller than it is.
        tokens: Whether its stages are tokens.
        fails: (role, method) -> why it does not work.
    """

    name: str
    strides: tuple[int, ...] = (4, 8, 16, 32)
    size: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    tokens: bool = False
    fails: dict[tuple[str, str], str] = field(default_factory=dict)

    def module(self) -> nn.Module:
        source, _, name = self.name.partition(":")
        makers = {"timm": timm.create_model, "torchvision": torchvision.models.get_model}
        make: Callable[..., nn.Module] = makers[source]
        return make(name, num_classes=CLASSES, **self.options)


SMALL_VIT = {"img_size": 64, "embed_dim": 48, "num_heads": 3}
FAMILIES = [
    Family("timm:resnet10t"),
    Family("timm:convnext_atto"),
    Family("timm:efficientnet_lite0"),
    Family("timm:mobilenetv4_conv_small_035"),
    Family("timm:vit_tiny_patch16_224", (16,) * 4, options=SMALL_VIT, tokens=True),
    Family("timm:deit_tiny_distilled_patch16_224", (16,) * 4, options=SMALL_VIT, tokens=True),
    Family("timm:swin_tiny_patch4_window7_224", options={"img_size": 64, "window_size": 4, "embed_dim": 24,
                                                         "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}),
    Family("timm:regnetx_002"),
    Family("timm:mobilevit_xxs"),
    Family("timm:hrnet_w18_small"),
    Family("timm:repvgg_a0"),
    Family("timm:fastvit_t8"),
    Family("torchvision:resnet18"),
    Family("torchvision:mobilenet_v3_small"),
    Family("torchvision:vgg11_bn", (2, 4, 8, 16)),
    Family("torchvision:efficientnet_b0"),
    Family("torchvision:swin_t"),
    Family("torchvision:vit_b_16", (16,) * 4, options={"image_size": 64}, tokens=True),
]
METHODS: dict[str, dict[str, Any]] = {"kd": {}, "reviewkd": {}, "distpro": {"space": "imagenet15"}}
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def network(family: Family) -> Network:
    torch.manual_seed(0)
    return Network(family.module(), name=family.name, size=(3, family.size, family.size), resize=True,
                   statistics=STATISTICS["imagenet"], factory=family.module)


def companion() -> Network:
    """A small network for the other role, with three stages."""
    torch.manual_seed(1)
    return Network(build("resnet8", CLASSES), name="resnet8", size=(3, 32, 32), resize=True,
                   statistics=STATISTICS["identity"])


def made(family: Family, role: str, method: str) -> Method:
    own, other = network(family), companion()
    student, teacher = (own, other) if role == "student" else (other, own)
    setting = Setting(Classification(), tuple("abcd"), split(8).targets, torch.arange(8), batch(2), batch_size=2)
    (stage,) = build_stages(MethodSettings(name=method, **METHODS[method]), student, teacher, setting)
    return stage.method


@pytest.mark.slow
@families
def test_stages_are_where_resolution_says(family: Family) -> None:
    own = network(family)
    assert tuple(round(family.size / own.shape(stage)[1]) for stage in own.stages) == family.strides
    assert own.of_tokens == family.tokens
    widths = [own.shape(stage)[0] for stage in own.stages]
    assert widths == sorted(widths)  # channels, not places: a map with channels last would not be in order
    assert len(own.shape("pooled")) == 1
    assert {"tokens", "cls"} <= own.addresses.keys() or not family.tokens


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*were not used.*")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ["student", "teacher"])
@families
def test_families_learn_and_teach(family: Family, role: str, method: str, tmp_path: Path) -> None:
    if (role, method) in family.fails:
        with pytest.raises(Exception, match=family.fails[role, method]):
            _trained(family, role, method, tmp_path)
        return
    _trained(family, role, method, tmp_path)


def _trained(family: Family, role: str, method: str, folder: Path) -> None:
    built = made(family, role, method)
    before = {name: p.detach().clone() for name, p in built.named_parameters()}
    run = trainer(built, folder, epochs=1, images=4, batch_size=2, search=method == "distpro")
    run.fit()
    after = dict(run.method.named_parameters())
    still = [name for name in before if torch.equal(before[name], after[name]) and before[name].numel() > 1]
    assert len(still) < len(before) / 4, still[:9]
    assert all(p.isfinite().all() for p in after.values())
    if method == "distpro":
        assert not torch.equal(run.method.process.raw, torch.ones_like(run.method.process.raw))
    shipped = run.method.student().deployed()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in shipped.modules())
    assert len(run.run.records()) == 2


def test_the_documentation_lists_the_families() -> None:
    listed = set(re.findall(r"^\| `((?:timm|torchvision):\S+)`", DOCS.read_text(), re.M))
    assert {family.name for family in FAMILIES} <= listed
