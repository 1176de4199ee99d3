"""Scores of everyone who answers, and of the group: how many images any of them gets right."""

from __future__ import annotations

import pytest
import torch
from core_tiny import CLASSES, Plain, batch, clock, network
from torch import Tensor

from limbeck.data import Batches, Split
from limbeck.data.images import Images
from limbeck.evaluation.groups import ANY_RIGHT, SIMILARITY
from limbeck.evaluation.scores import score, score_group
from limbeck.members import Ensemble
from limbeck.method import Method
from limbeck.process import Scheduled
from limbeck.tasks.classification import Classification
from limbeck.terms import Supervise

TASK = Classification()


def images(count: int = 12) -> Batches:
    chance = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (count, 3, 16, 16), generator=chance, dtype=torch.uint8)
    return Batches(Split.whole(Images(pixels), torch.randint(CLASSES, (count,), generator=chance)), 5, train=False)


def group(*together: str) -> Method:
    """`student`, `peer` and `other`; the ensemble is of some of them, or there is none."""
    networks = {name: network(Plain()) for name in ("student", "peer", "other")}
    ensemble = {"ensemble": Ensemble([f"{name}.logits" for name in together])} if together else {}
    terms = {name: Supervise(name, TASK) for name in networks}
    return Method({**networks, **ensemble}, terms, Scheduled(dict.fromkeys(terms, 1.0)))


def right(method: Method, name: str) -> Tensor:
    """Which images a network gets right, written plainly."""
    answers = [(method.members[name].eval().logits(b.images).argmax(1) == b.targets) for b in images().epoch(0)]
    return torch.cat(answers)


def test_the_union_is_of_those_whom_the_ensemble_averages() -> None:
    method = group("student", "peer")
    either, third = right(method, "student") | right(method, "peer"), right(method, "other")
    found = score_group(method, images(), TASK)
    assert found[ANY_RIGHT]["top1"] == pytest.approx(100 * either.float().mean().item())
    assert (either | third).sum() > either.sum(), "the third network must add some image, or this test says nothing"
    assert set(found) == {"student", "peer", "other", "ensemble", ANY_RIGHT, SIMILARITY}


def test_without_an_ensemble_it_is_of_all_networks() -> None:
    method = group()
    everyone = right(method, "student") | right(method, "peer") | right(method, "other")
    found = score_group(method, images(), TASK)[ANY_RIGHT]["top1"]
    assert found == pytest.approx(100 * everyone.float().mean().item())


def test_everyone_has_the_score_of_a_network_alone_and_stays_in_train_mode() -> None:
    method = group("student", "peer").train()
    found = score_group(method, images(), TASK)
    assert found["other"] == score(method.members["other"], images(), TASK)
    assert all(part.training for part in method.modules())
    mean = method.eval().see(batch(), clock())["ensemble.logits"]
    both = [method.members[name].logits(batch().images) for name in ("student", "peer")]
    torch.testing.assert_close(mean, sum(both) / 2)
