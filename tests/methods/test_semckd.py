"""SemCKD: all pairs of stages, by what attention makes of the batch's similarities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from features_tiny import Known, features, losses, normed, parameters, total, weights_of
from methods_tiny import NOW, ce, kl, setting
from torch import Tensor, nn

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.method import Method
from limbeck.methods.semckd import semckd

STAGES = ["stage1", "stage2", "stage3"]


def made(images: int = 8, kinds: tuple[str, str] = ("cnn", "cnn"), **options: float) -> tuple[Method, Known]:
    student, teacher = tiny(4, kind=kinds[0]), tiny(6, seed=1, kind=kinds[1])
    torch.manual_seed(0)
    method = semckd(student, teacher, replace(setting(), batch_size=images), **options)
    return method, features(student, teacher, list(student.stages), list(teacher.stages))


def looked(x: Tensor, mlp: nn.Sequential, images: int) -> Tensor:
    """A query or key of every sample, at length 1."""
    alike = torch.zeros(len(x), images, dtype=x.dtype)
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            alike[i, j] = (a * b).sum()
    hidden = (alike @ mlp[0].weight.T + mlp[0].bias).clamp(min=0)
    rows = hidden @ mlp[2].weight.T + mlp[2].bias
    return rows / rows.norm(dim=1, keepdim=True)


def attention(method: Method, known: Known, images: int) -> Tensor:
    member = method.members["attention"]
    queries = [looked(known["student"][s], mlp, images) for s, mlp in zip(STAGES, member.queries, strict=True)]
    keys = [looked(known["teacher"][s], mlp, images) for s, mlp in zip(STAGES, member.keys, strict=True)]
    alike = torch.stack([torch.stack([(q * k).sum(1) for k in keys], 1) for q in queries], 1)
    return alike.softmax(2)  # (N, S, T)


@pytest.mark.parametrize("images", [8, 11])
def test_total_is_kd_and_400_attended_distances(images):
    method, known = made(images)
    found = total(method, known)
    s, t = known["student"], known["teacher"]
    weights = attention(method, known, images)
    expected = ce(s["logits"]) + kl(s["logits"], t["logits"])
    for i, own in enumerate(STAGES):
        for j, source in enumerate(STAGES):
            side = min(s[own].shape[-1], t[source].shape[-1])
            layers = method.terms[f"s{i + 1}-t{j + 1}"].connect.layers
            x = F.adaptive_avg_pool2d(s[own], side)
            x = normed(F.conv2d(x, layers[2].weight)).clamp(min=0)
            x = normed(F.conv2d(x, layers[5].weight, padding=1)).clamp(min=0)
            gap = F.conv2d(x, layers[8].weight) - F.adaptive_avg_pool2d(t[source], side)
            expected = expected + 400 / 3 * (weights[:, i, j] * gap.square().mean((1, 2, 3))).mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_each_pair_is_a_term_with_a_projection_of_its_own():
    method, _ = made(weight=30.0, kl=0.5, ce=0.25)
    weights = weights_of(method)
    assert weights.pop("kl") == 0.5
    assert weights.pop("ce") == 0.25
    assert weights == {f"s{i}-t{j}": 10.0 for i in (1, 2, 3) for j in (1, 2, 3)}
    # stage 3 of the student, 8 wide, to stage 3 of the teacher, 12 wide: 1x1 to 24, norm, 3x3, norm, 1x1 to 12
    assert parameters(method.terms["s3-t3"]) == 8 * 24 + 48 + 9 * 24 * 24 + 48 + 24 * 12
    assert parameters(method.members["attention"]) == 6 * ((8 * 4 + 4) + (4 * 2 + 2))
    assert len(method.owners()["attention"]) == 24


def test_the_attention_of_a_student_stage_sums_to_one_and_learns():
    method, known = made()
    method.double()
    seen = method.see(batch(), NOW, known=known)
    outputs = seen.outputs("attention")
    for i in (1, 2, 3):
        sums = torch.stack([outputs[f"s{i}-t{j}"] for j in (1, 2, 3)]).sum(0)
        torch.testing.assert_close(sums, torch.ones(8, dtype=torch.float64))
    method(seen, frozenset({"s1-t2"}))["s1-t2"].backward()
    assert method.members["attention"].queries[0][0].weight.grad.abs().sum() > 0


def test_tokens_are_compared_as_maps():
    method, known = made(kinds=("vit", "cnn"))
    assert set(losses(method, known)) == {"ce", "kl", *(f"s{i}-t{j}" for i in (1, 2, 3, 4) for j in (1, 2, 3))}
    assert method.terms["s4-t1"].connect.layers[1].size == (4, 4)
    assert method.terms["s4-t1"].connect_source[1].size == (4, 4)


def test_a_batch_larger_than_the_attention_is_refused():
    method, known = made(5)
    with pytest.raises(Mistake, match=r"for batches of 5 images; this one has 8. Give no more than training.batch_s"):
        losses(method, known)
