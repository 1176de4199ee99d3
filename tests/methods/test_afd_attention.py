"""AFD by attention: teacher blocks matched with the student's."""

from __future__ import annotations

import math

import pytest
import torch
from features_tiny import Known, features, losses, parameters, total, weights_of
from methods_tiny import ce, kl, setting
from torch import Tensor, nn

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.losses import weighted_attention
from limbeck.members import STATISTICS, Network
from limbeck.method import Method
from limbeck.methods.afd_attention import afd_attention, attended
from limbeck.networks import build

BLOCKS = ["stages.0", "stages.1", "stages.2"]


def made(**options: float) -> tuple[Method, Known]:
    student, teacher = tiny(4), tiny(6, seed=1)
    torch.manual_seed(0)
    return afd_attention(student, teacher, setting(), **options), features(student, teacher, BLOCKS)


def scaled(x: Tensor) -> Tensor:
    """Batch norm of rows, as it starts."""
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


def through(layers: nn.Sequential, x: Tensor) -> Tensor:
    return scaled(x @ layers[0].weight.T + layers[0].bias)


def attention(method: Method, known: Known, width: int) -> Tensor:
    """Each teacher block's weights over the student's, (N, T, S)."""
    member = method.members["attention"]
    s, t = ([known[name][block].mean((2, 3)) for block in BLOCKS] for name in ("student", "teacher"))
    keys = [through(layers, x).clamp(min=0) for layers, x in zip(member.keys, s, strict=True)]
    keys = torch.stack([key[n] for n in range(8) for key in keys])  # image by image, each block's
    keys = through(member.for_each_teacher_block, keys).view(8, 3, 3, width)  # (N, S, T, D)
    queries = [through(layers, x) for layers, x in zip(member.queries, t, strict=True)]
    alike = torch.zeros(8, 3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            alike[:, i, j] = (keys[:, j, i] * queries[i]).sum(1) + member.source_places[i] @ member.places[j]
    return (alike / math.sqrt(width)).softmax(2)


@pytest.mark.parametrize("width", [128, 6])
def test_total_is_kd_and_200_attended_distances(width):
    method, known = made(width=width)
    found, weights = total(method, known), attention(method, known, width)
    s, t = known["student"], known["teacher"]
    expected = ce(s["logits"]) + 0.9 * kl(s["logits"], t["logits"])
    for i, source in enumerate(BLOCKS):
        for j, own in enumerate(BLOCKS):
            expected = expected + 200 * weighted_attention(s[own], t[source], weights[:, i, j])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_distance_of_one_student_block_is_that_of_the_losses():
    chance = torch.Generator().manual_seed(0)
    s, t = (torch.randn(3, c, 4, 4, generator=chance, dtype=torch.float64) for c in (5, 7))
    weights = torch.rand(3, generator=chance, dtype=torch.float64)
    found = attended((s.square().mean(1)[:, None], weights[:, None]), t)
    torch.testing.assert_close(found, weighted_attention(s, t, weights), rtol=1e-9, atol=1e-12)


def test_every_teacher_block_is_a_term_and_the_attention_counts_its_parameters():
    method, _ = made(weight=7.0, kl=0.5, ce=0.25, width=16)
    assert weights_of(method) == {"ce": 0.25, "kl": 0.5, "t1": 7, "t2": 7, "t3": 7}
    channels = {"student": (4, 4, 8), "teacher": (6, 6, 12)}
    each = sum(c * 16 + 16 + 32 for side in channels.values() for c in side)
    assert parameters(method.members["attention"]) == each + (16 * 48 + 48 + 96) + 2 * 3 * 16
    assert method.terms["t2"].reads == ("attention.8x8", "attention.t2", "teacher.stages.1")


@pytest.mark.parametrize(("every", "sources"), [
    (1, [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1)]), (2, ["layer1.1", "layer2.1", "layer3.1"]),
    (4, ["layer1.1", "layer3.1"])])
def test_blocks_are_taps_and_every_so_many_of_the_teachers(every, sources):
    student, teacher = (Network(build(name, 4), name=name, size=(3, 16, 16), statistics=STATISTICS["cifar100"])
                        for name in ("wrn_16_1", "resnet14"))
    method = afd_attention(student, teacher, setting(), every=every, width=4)
    assert [term.source[0] for name, term in method.terms.items() if name.startswith("t")] == [
        f"teacher.{tap}" for tap in sources]
    own = [a for a in method.members["attention"].reads if a.startswith("student")]
    assert own == [f"student.block{i}.layer.{j}" for i in (1, 2, 3) for j in (0, 1)]


def test_every_below_one_is_refused():
    with pytest.raises(Mistake, match=r"every must be 1 or more; got 0. 1 takes all of the teacher's blocks"):
        made(every=0)


def test_gradient_reaches_the_student_through_maps_and_weights():
    method, known = made(width=4)
    known["student"] = {tap: x.requires_grad_() for tap, x in known["student"].items()}
    losses(method, known)["t1"].backward()
    assert all(known["student"][block].grad.abs().sum() > 0 for block in BLOCKS)
    assert method.members["attention"].places.grad.abs().sum() > 0
