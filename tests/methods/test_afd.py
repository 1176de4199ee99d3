"""AFD: losses of networks and judges, the ring, shapes of maps, and which optimiser steps whom."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from methods_tiny import NOW, ce, kl, logits, setting, trainer
from torch import Tensor

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.method import Stage
from limbeck.methods.afd import Judge, afd


def build(**options) -> Stage:
    stage, = afd(tiny(), setting(), **options)
    return stage


def values(stage: Stage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms on a batch, and the maps that they read."""
    method = stage.method.train()
    seen = method.see(batch(), NOW)
    terms = method(seen, frozenset(method.terms))
    return terms, {name: seen[f"map_{name}.map"] for name in ("student", "peer1")}


def test_the_logits_turn_is_mutual_learning_on_a_ring():
    method = build(copies=2).method
    z = logits("student", "peer1", "peer2")
    seen = method.see(batch(), NOW, known={name: {"logits": x} for name, x in z.items()})
    first, second = method.turns
    terms = method(seen, first.terms)
    ring = {"student": "peer2", "peer1": "student", "peer2": "peer1"}
    expected = sum(ce(z[name]) + kl(z[name], z[other], 3.0) for name, other in ring.items())
    torch.testing.assert_close(sum(terms.values()), expected, rtol=1e-6, atol=1e-6)
    assert set(terms) == {"ce", "peer1/ce", "peer2/ce", *(f"{name}/{other}" for name, other in ring.items())}
    assert method.members["judge_peer1"].reads == ("map_peer1.map", "map_student.map")
    assert first.owners == {"student", "peer1", "peer2"}
    assert second.terms == {f"{name}/fools" for name in ring} | {f"judge_{n}/{side}" for n in ring
                                                                 for side in ("own", "other")}


def test_judges_are_to_say_one_of_others_and_zero_of_their_own_and_networks_to_change_that():
    stage = build()
    judge = stage.method.members["judge_student"]
    twin = copy.deepcopy(judge.decide)
    terms, maps = values(stage)
    own, other = twin(maps["student"]), twin(maps["peer1"])
    torch.testing.assert_close(terms["judge_student/own"], own.square().mean())
    torch.testing.assert_close(terms["judge_student/other"], (1 - other).square().mean())
    torch.testing.assert_close(terms["student/fools"], (1 - own).square().mean())
    assert (own > 0).all()
    assert (own < 1).all()


def test_weights_are_where_the_formula_has_them():
    method = build(ce=0.3, kl=0.5, adversarial=0.7).method
    weights = dict(zip(method.process.names, method.process.weights(NOW).tolist(), strict=True))
    assert {name.rpartition("/")[2]: round(weight, 6) for name, weight in weights.items()} == {
        "ce": 0.3, "peer1": 0.5, "student": 0.5, "fools": 0.7, "own": 0.7, "other": 0.7}


def test_a_lent_judge_is_as_it_was_and_its_statistics_count_its_own_looks_alone():
    stage = build()
    method, judge = stage.method, stage.method.members["judge_student"]
    before = {name: x.clone() for name, x in judge.state_dict().items()}
    seen = method.train().see(batch(), NOW)
    method(seen, frozenset({"student/fools"}))
    assert all(torch.equal(x, before[name]) for name, x in judge.state_dict().items())
    method(seen, frozenset({"judge_student/own"}))
    assert judge.decide[1].num_batches_tracked == 2


def test_a_judge_is_as_the_variant_says():
    judge = Judge("a.map", "b.map", 64)
    convolutions = 9 * 64 * 32 + 2 * 32 + 9 * 32 * 16 + 2 * 16
    assert sum(p.numel() for p in judge.parameters()) == convolutions + 16 + 1
    assert judge.decide[:4](torch.rand(2, 64, 8, 8)).shape == (2, 16, 4, 4)
    assert judge.decide(torch.rand(2, 64, 1, 1)).shape == (2, 1)


def test_maps_of_one_shape_stay_and_others_meet_at_the_least():
    assert not list(build().method.members["map_student"].parameters())
    method = build(peers=[tiny(12), tiny(kind="vit")]).method
    seen = method.see(batch(), NOW)
    names = ("student", "peer1", "peer2")
    assert [tuple(seen[f"map_{name}.map"].shape) for name in names] == [(8, 8, 4, 4)] * 3
    sizes = {name: sum(p.numel() for p in method.members[f"map_{name}"].parameters()) for name in names}
    assert sizes == {"student": 16 * 8 + 16, "peer1": 24 * 8 + 16, "peer2": 0}


def test_logits_are_stepped_by_the_runs_optimiser_then_maps_and_judges_by_adam(tmp_path: Path):
    stage = build()
    plain = copy.deepcopy(stage.method).train()
    run = trainer([stage], tmp_path, epochs=0.5)
    images = next(iter(run.batches.epoch(0)))
    run.fit()
    networks = {name: plain.members[name] for name in ("student", "peer1")}
    z = {name: network.logits(images.images) for name, network in networks.items()}
    sum(F.cross_entropy(z[a], images.targets) + 9 * F.kl_div(
        (z[a] / 3).log_softmax(1), (z[b].detach() / 3).softmax(1), reduction="batchmean")
        for a, b in (("student", "peer1"), ("peer1", "student"))).backward()
    learning = [p for network in networks.values() for p in network.parameters()]
    torch.optim.SGD(learning, lr=0.02, momentum=0.9, weight_decay=5e-4).step()
    plain.zero_grad()
    sum(plain(plain.see(images, NOW), plain.turns[1].terms).values()).backward()
    torch.optim.Adam(plain.parameters(), lr=2e-5, weight_decay=0.1).step()
    for (name, p), q in zip(run.method.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=5e-6, msg=name)
    ordinary, adversarial = run.optimizer.parts
    assert [group["owner"] for group in ordinary.param_groups] == ["student", "peer1"]
    assert (type(adversarial), adversarial.param_groups[0]["lr"]) == (torch.optim.Adam, 2e-5)
    assert run.method.members["student"].module.fc.weight not in adversarial.state


def test_without_judges_it_is_mutual_learning_alone():
    stage = build(adversarial=0.0)
    assert list(stage.method.members) == ["student", "peer1", "ensemble"]
    assert len(stage.method.turns) == 1
    assert stage.optimizers == {}


def test_nobody_learns_alone():
    with pytest.raises(Mistake, match="two networks or more"):
        build(copies=0)
