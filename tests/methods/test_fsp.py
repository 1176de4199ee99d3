"""FSP: flow matrices of consecutive layers, before the task or beside it."""

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
from limbeck.methods.fsp import fsp

LAYERS = ["stem", "stage1", "stage2", "stage3"]


def flow(a: Tensor, b: Tensor, mode: str) -> Tensor:
    """C_a x C_b of each sample."""
    pool = F.adaptive_max_pool2d if mode == "torchdistill" else F.adaptive_avg_pool2d
    a = pool(a, b.shape[2:])
    return torch.einsum("naxy,nbxy->nab", a, b) / b[0, 0].numel()


@pytest.mark.parametrize("mode", ["repdistiller", "torchdistill"])
@pytest.mark.parametrize("form", ["staged", "joint"])
def test_total_is_the_distance_of_all_flows(form, mode):
    student, teacher = tiny(), tiny(seed=1)
    built = fsp(student, teacher, setting(), form=form, mode=mode, weight=3.0)
    known = features(student, teacher, LAYERS)
    expected = ce(known["student"]["logits"]) if form == "joint" else 0.0
    for a, b in pairwise(LAYERS):
        own, source = (flow(known[name][a], known[name][b], mode) for name in ("student", "teacher"))
        gap = own - source
        expected = expected + 3 * (gap.square().mean() if mode == "repdistiller" else gap.norm(dim=1).sum(1).mean())
    found = total(built[0].method if form == "staged" else built, known)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_staged_is_the_flows_and_then_the_task_alone():
    student = tiny()
    first, then = fsp(student, tiny(seed=1), setting(), init_length=0.25)
    assert weights_of(first.method) == {"stem-stage1": 1, "stage1-stage2": 1, "stage2-stage3": 1}
    assert weights_of(then.method) == {"ce": 1}
    assert (first.length, first.schedule.kind, then.length) == (0.25, "constant", 1)
    assert first.method.student() is then.method.student() is student
    assert then.method.frozen == {}


def test_networks_without_a_stem_begin_at_their_first_stages():
    student, teacher = tiny(), tiny(seed=1)
    del student.module.taps["stem"]
    assert fsp(student, teacher, setting(), form="joint").process.names == ("ce", "stage1-stage2", "stage2-stage3")


def test_other_channels_are_a_mistake_that_names_them():
    with pytest.raises(Mistake, match=r"fsp needs equal channels in tiny8 and tiny12; got 8 and 12 at stem, .* 16 and "
                                      r"24 at stage3\. Choose two networks of one family"):
        fsp(tiny(), tiny(12), setting())
    with pytest.raises(Mistake, match="fsp needs equal channels"):
        fsp(tiny(kind="vit"), tiny(), setting())
