"""Stages pair in order, by stride, or by their part of the way."""

from __future__ import annotations

import pytest
import timm
from core_tiny import Plain, Tokens, network
from torch import nn

from limbeck.contract.trial import tiny
from limbeck.members import STATISTICS, Network
from limbeck.methods.reviewkd import reviewkd
from limbeck.networks import build
from limbeck.pairing import paired, shown, stride, unlike


class Pyramid(nn.Sequential):
    """Stages of these strides, one after the other."""

    def __init__(self, *strides: int):
        before = (1, *strides)
        stages = (nn.Conv2d(3 if i == 0 else 4, 4, 3, stride // before[i], 1) for i, stride in enumerate(strides))
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        self.taps = {f"stage{i + 1}": str(i) for i in range(len(strides))}


def pyramid(*strides: int, size: int = 32) -> Network:
    return Network(Pyramid(*strides), name=f"pyramid{strides}", size=(3, size, size), statistics=STATISTICS["identity"])


@pytest.mark.parametrize(("student", "teacher", "expected"), [
    ((1, 2, 4), (2, 4, 8), [(1, 1), (2, 2), (3, 3)]),  # as many: in order
    ((1, 2, 4), (1, 2, 4, 8), [(1, 1), (2, 2), (3, 3)]), ((2, 4, 8), (1, 2, 4, 8), [(1, 2), (2, 3), (3, 4)]),
    ((1, 2, 4, 8), (2, 8), [(2, 1), (4, 2)]), ((4, 8, 16, 32), (1, 2, 4), [(1, 1), (2, 2), (3, 3)]),
    ((1, 4), (1, 1, 4, 4), [(1, 2), (2, 4)])])  # of equal choices the deepest
def test_pyramids_pair_by_stride(student, teacher, expected) -> None:
    own, source = pyramid(*student), pyramid(*teacher)
    assert paired(own, source) == [(f"stage{a}", f"stage{b}") for a, b in expected]
    assert paired(source, own) == [(f"stage{b}", f"stage{a}") for a, b in expected]


def test_input_sizes_do_not_matter_to_strides() -> None:
    assert [stride(pyramid(1, 2, 4, size=size), "stage3") for size in (16, 32)] == [4, 4]
    assert paired(pyramid(2, 4, size=64), pyramid(1, 2, 4, size=32)) == [("stage1", "stage2"), ("stage2", "stage3")]


def test_transformers_pair_by_their_part_of_the_way() -> None:
    assert paired(network(Tokens()), network(Plain())) == [("stage2", "stage1"), ("stage4", "stage2")]
    assert paired(tiny(), tiny(kind="vit")) == [("stage1", "stage1"), ("stage2", "stage3"), ("stage3", "stage4")]
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=8, num_heads=2, depth=12)
    deep = Network(vit, name="vit", size=(3, 32, 32), statistics=STATISTICS["identity"])
    assert paired(deep, pyramid(1, 2, 4, 8)) == [(f"stage{i}",) * 2 for i in range(1, 5)]


def test_the_standard_pairs_are_in_order() -> None:
    for student, teacher in (("resnet8x4", "resnet32x4"), ("mobilenetv2", "vgg13"), ("vgg8", "resnet50")):
        networks = [Network(build(name, 10), name=name, size=(3, 32, 32), statistics=STATISTICS["identity"])
                    for name in (student, teacher)]
        assert paired(*networks) == list(zip(networks[0].stages, networks[1].stages, strict=True))


def test_what_differs_is_said_and_what_pairs_is_shown() -> None:
    assert unlike(pyramid(1, 2, 4), pyramid(1, 2, 4)) == []
    (line,) = unlike(pyramid(2, 4), pyramid(1, 2, 4))
    assert line.endswith("differ in stages; where a method pairs them, stage2 (stride 2) teaches stage1 (2), "
                         "stage3 (stride 4) teaches stage2 (4).")
    assert unlike(tiny(kind="vit"), tiny()) != []
    assert shown(pyramid(2, 4), pyramid(1, 2, 4)).splitlines()[0] == (
        "stage1 of the student, 4 x 16 x 16, stride 2  <-  stage2 of the teacher, 4 x 16 x 16, stride 2")


def test_reviews_levels_are_the_stages_that_pair() -> None:
    from limbeck.method import Setting
    from limbeck.tasks.classification import Classification

    method = reviewkd(pyramid(2, 4, 8), pyramid(1, 2, 4, 8),
                      Setting(Classification(), tuple("abc"), None, None, None))  # type: ignore[arg-type]
    assert method.members["review"].reads == ("student.stage1", "student.stage2", "student.stage3", "student.pooled")
    assert [method.terms[f"level{i}"].reads[1] for i in range(1, 5)] == [
        "teacher.stage2.pre", "teacher.stage3.pre", "teacher.stage4.pre", "teacher.pooled"]
