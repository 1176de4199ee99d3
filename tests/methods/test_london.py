"""LONDON: OFD, and the largest singular value of each stage with the next."""

from __future__ import annotations

import pytest
import torch
from features_tiny import convolved, features, normed, parameters, total, weights_of
from methods_tiny import NOW, ce, setting
from torch import Tensor

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.methods.london import london
from limbeck.methods.ofd import ofd
from limbeck.seen import Clock

STAGES = ["stage1", "stage2", "stage3"]
BEFORE = [f"{stage}.pre" for stage in STAGES]


def stretch(a: Tensor, b: Tensor) -> Tensor:
    """Largest singular value of a sample's C_a x C_b matrix, by ten steps of the power iteration from ones."""
    a = torch.nn.functional.adaptive_avg_pool2d(a, b.shape[1:])
    matrix = a.flatten(1) @ b.flatten(1).T / b[0].numel()
    v = torch.ones(len(matrix), dtype=torch.float64)
    for _ in range(10):
        v = matrix @ (matrix.T @ v)
        length, v = v.norm(), v / v.norm()
    return length.sqrt()


@pytest.mark.parametrize(("progress", "a"), [(0, 0.8), (11, 0.8), (12, 0.2), (19, 0.2)])
@pytest.mark.parametrize("connect", ["first", "both"])
def test_total_is_ofd_and_the_squared_differences_of_stretches(connect, progress, a):
    student, teacher = tiny(), tiny(12, seed=1)
    method = london(student, teacher, setting(), connect=connect)
    known = features(student, teacher, BEFORE)
    now = Clock(progress, 20, 10)
    found, expected = total(method, known, now), ce(known["student"]["logits"])
    s, t = ([known[name][tap] for tap in BEFORE] for name in ("student", "teacher"))
    connected = [normed(convolved(x, method.members["connected"].connectors[stage][1]))
                 for x, stage in zip(s, STAGES, strict=True)]
    for i, stage in enumerate(STAGES):
        target = t[i].maximum(method.terms[stage].distance.margin[None, :, None, None])
        counted = ((connected[i] > target) | (target > 0)).double()
        expected = expected + 1e-3 / 2 ** (2 - i) * ((connected[i] - target) ** 2 * counted).sum((1, 2, 3)).mean()
    for i in (0, 1):
        later = connected[i + 1] if connect == "both" else s[i + 1]
        gaps = [stretch(connected[i][n], later[n]) - stretch(t[i][n], t[i + 1][n]) for n in range(8)]
        expected = expected + a / 200 / 2 ** (2 - i) * torch.stack(gaps).square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_weights_deepen_and_change_once():
    method = london(tiny(), tiny(12), setting(), stretch=1.0, until=0.5)
    early, late = weights_of(method, Clock(9, 20, 10)), weights_of(method, Clock(10, 20, 10))
    assert early == pytest.approx({"ce": 1, "stage1": 2.5e-4, "stage2": 5e-4, "stage3": 1e-3, "stage1-stage2": 0.2,
                                   "stage2-stage3": 0.4})
    assert {name: late[name] / early[name] for name in late} == pytest.approx(
        {**dict.fromkeys(["ce", *STAGES], 1), "stage1-stage2": 0.25, "stage2-stage3": 0.25})


def test_connectors_are_ofds_and_shared_by_both_kinds_of_terms():
    method, plain = london(tiny(), tiny(12), setting()), ofd(tiny(), tiny(12), setting())
    assert parameters(method.members["connected"]) == sum(parameters(plain.terms[stage]) for stage in STAGES)
    assert sum(map(parameters, method.terms.values())) == 0
    assert method.terms["stage1-stage2"].reads == (
        "connected.stage1", "student.stage2.pre", "teacher.stage1.pre", "teacher.stage2.pre")


def test_more_iterations_reach_the_singular_value():
    student, teacher = tiny(), tiny(12, seed=1)
    known = features(student, teacher, BEFORE)
    values = []
    for count in (1, 10, 200):
        method = london(student, teacher, setting(), iterations=count).double()
        as_they_are = {stage: known["student"][f"{stage}.pre"] for stage in STAGES}
        seen = method.see(batch(), NOW, known={**known, "connected": as_they_are})
        values.append(method.terms["stage1-stage2"](seen))
    exact = [[torch.linalg.svdvals(torch.nn.functional.avg_pool2d(a, 2).flatten(1) @ b.flatten(1).T / 64)[0]
              for a, b in zip(known[name]["stage1.pre"], known[name]["stage2.pre"], strict=True)]
             for name in ("student", "teacher")]
    limit = (torch.stack(exact[0]) - torch.stack(exact[1])).square().mean()
    assert values[2] == pytest.approx(limit.item(), rel=1e-3)
    assert abs(values[0] - limit) > abs(values[2] - limit)


def test_one_stage_is_too_few():
    short = tiny()
    short.module.taps = {"stage1": "stages.2", "pooled": "fc:in"}
    with pytest.raises(Mistake, match=r"two stages of each network; tiny8 has \['stage1'\], tiny12 \['stage1', 's"):
        london(short, tiny(12), setting())
