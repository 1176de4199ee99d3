"""KD-SVD: how the main directions of one stage lie to those of the next, in both readings."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from features_tiny import features, total, weights_of
from methods_tiny import ce, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.methods.kdsvd import kdsvd

STAGES = ["stage1", "stage2", "stage3"]


def directions(x: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Right singular vectors, a row each, and values of one sample's map (C, H, W)."""
    matrix = x.flatten(1).T if mode == "repdistiller" else x.flatten(0, 1)
    _, values, vectors = torch.linalg.svd(matrix, full_matrices=False)
    return vectors, values


def aligned(student: Tensor, teacher: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """The teacher's main direction with a sum that is not negative, and the most parallel of the student's four."""
    v_t = directions(teacher, mode)[0][0]
    v_t = v_t if v_t.sum() >= 0 else -v_t
    v_s = directions(student, mode)[0][:4]
    cosines = v_s @ v_t
    best = cosines.abs().argmax()
    return v_s[best] * cosines[best].sign(), v_t


def affinity(earlier: Tensor, later: Tensor) -> Tensor:
    return torch.exp(-(later[None, :] - earlier[:, None]) ** 2 / 8)


def difference(student: list[Tensor], teacher: list[Tensor], mode: str) -> Tensor:
    """Of one sample and two stages."""
    pairs = [aligned(s, t, mode) for s, t in zip(student, teacher, strict=True)]
    return (affinity(pairs[0][0], pairs[1][0]) - affinity(pairs[0][1], pairs[1][1])).square().sum()


@pytest.mark.parametrize(("mode", "width"), [("mdistiller", 12), ("repdistiller", 8)])
def test_total_is_the_task_and_the_differences_of_affinities(mode, width):
    student, teacher = tiny(), tiny(width, seed=1)
    known = features(student, teacher, STAGES)
    expected = ce(known["student"]["logits"])
    for pair in (STAGES[:2], STAGES[1:]):
        samples = [[[known[name][stage][n] for stage in pair] for name in ("student", "teacher")] for n in range(8)]
        expected = expected + torch.stack([difference(*sample, mode) for sample in samples]).mean()
    found = total(kdsvd(student, teacher, setting(), mode=mode), known)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_maps_of_other_sizes_meet_at_the_smaller(larger):
    kinds = ("cnn", "vit") if larger == "student" else ("vit", "cnn")
    student, teacher = (tiny(width, kind=kind, seed=width) for width, kind in zip((8, 12), kinds, strict=True))
    method = kdsvd(student, teacher, setting())
    last = {"cnn": STAGES, "vit": ["stage1", "stage3", "stage4"]}
    own = [term.reads[:2] for name, term in method.terms.items() if name != "ce"]
    assert own == [tuple(f"student.{stage}" for stage in pair) for pair in pairwise(last[kinds[0]])]
    known = features(student, teacher, last[kinds[0]], last[kinds[1]])
    found = total(method, known)
    pooled = {stage: F.adaptive_avg_pool2d(known[larger][stage], 4) for stage in STAGES}
    again = total(method, {**known, larger: {**known[larger], **pooled}})
    torch.testing.assert_close(again, found, rtol=1e-6, atol=1e-6)


def test_weights_and_directions_are_as_given():
    method = kdsvd(tiny(), tiny(12), setting(), weight=2.0)
    assert weights_of(method) == {"ce": 1, "stage1-stage2": 2, "stage2-stage3": 2}
    student, teacher = tiny(), tiny(12, seed=1)
    known = features(student, teacher, STAGES)
    one, two = (total(kdsvd(student, teacher, setting(), directions=count), known) for count in (1, 2))
    assert not torch.isclose(one, two)


def test_channels_must_agree_where_directions_are_of_channels():
    with pytest.raises(Mistake, match=r"kdsvd, read as in repdistiller, needs equal channels in tiny8 and tiny12; got "
                                      r"8 and 12 at stage1"):
        kdsvd(tiny(), tiny(12), setting(), mode="repdistiller")
