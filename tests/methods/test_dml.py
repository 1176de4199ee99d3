"""DML: totals for any number of peers, and the published order, in which each learns from those stepped before it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from methods_tiny import ce, kl, logits, losses, setting, total, trainer

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.method import Method, Stage, Turn
from limbeck.methods.dml import dml
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.tasks.classification import Classification


def build(**options) -> Method:
    return dml(tiny(), setting(), **options)


@pytest.mark.parametrize(("options", "temperature", "share"), [
    ({}, 1.0, 0.5), ({"temperature": 2.0}, 2.0, 0.5), ({"share": "sum"}, 1.0, 1.0)], ids=["paper", "ffsd", "code"])
def test_total_is_each_networks_loss_with_its_share_of_the_others(options, temperature, share):
    z = logits("student", "peer1", "peer2")
    expected = sum(ce(own) + share * sum(kl(own, other, temperature) for other in z.values() if other is not own)
                   for own in z.values())
    torch.testing.assert_close(total(build(copies=2, **options), z), expected, rtol=1e-6, atol=1e-6)


def test_weights_are_where_the_formula_has_them():
    z = logits("student", "peer1")
    found = total(build(ce=0.3, kl=0.7), z)
    expected = sum(0.3 * ce(z[a]) + 0.7 * kl(z[a], z[b], 1.0) for a, b in (("student", "peer1"), ("peer1", "student")))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_each_is_a_constant_to_the_others():
    z = logits("student", "peer1")
    terms = losses(build(), z)
    assert list(terms) == ["ce", "peer1/ce", "student/peer1", "peer1/student"]
    for name, own in (("student/peer1", "student"), ("peer1/student", "peer1")):
        other, = set(z) - {own}
        gradients = torch.autograd.grad(terms[name], [z[own], z[other]], allow_unused=True)
        assert gradients[0].abs().max() > 0
        assert gradients[1] is None


def test_peers_are_copies_with_seeds_of_their_own_or_whoever_is_given():
    method = build(copies=2)
    first = [next(method.members[name].parameters()) for name in ("student", "peer1", "peer2")]
    assert not any(torch.equal(p, q) for i, p in enumerate(first) for q in first[:i])
    peers = [tiny(12, seed=1), tiny(kind="vit")]
    given = build(peers=peers, copies=7)
    assert [given.members["peer1"], given.members["peer2"]] == peers
    assert list(given.owners()) == ["student", "peer1", "peer2"]
    assert given.student() is given.members["student"]


def test_the_mean_of_all_logits_is_there_to_be_scored():
    z = logits("student", "peer1", "peer2")
    method = build(copies=2)
    seen = method.see(setting().sample, None, known={name: {"logits": x} for name, x in z.items()})
    torch.testing.assert_close(seen["ensemble.logits"], sum(z.values()) / 3)
    assert method.members["ensemble"].answers


def test_alternating_steps_one_network_after_the_other():
    assert build().turns == (Turn(frozenset({"ce", "peer1/ce", "student/peer1", "peer1/student"})),)
    assert build(form="alternating").turns == (
        Turn(frozenset({"ce", "student/peer1"}), frozenset({"student"})),
        Turn(frozenset({"peer1/ce", "peer1/student"}), frozenset({"peer1"})))


def test_the_second_network_learns_from_the_first_as_it_is_after_its_step(tmp_path: Path):
    method = build(form="alternating")
    plain, together = copy.deepcopy(method), build()
    run = trainer([Stage(method)], tmp_path / "one", epochs=0.5)
    images = next(iter(run.batches.epoch(0)))
    run.fit()
    one, other = (plain.members[name] for name in ("student", "peer1"))
    for learner, source in ((one, other), (other, one)):
        z, target = learner.logits(images.images), source.logits(images.images).detach()
        loss = F.cross_entropy(z, images.targets) + F.kl_div(
            z.log_softmax(1), target.softmax(1), reduction="batchmean")
        loss.backward()
        torch.optim.SGD(learner.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4).step()
    for name, member in (("student", one), ("peer1", other)):
        for p, q in zip(method.members[name].parameters(), member.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    trainer([Stage(together)], tmp_path / "two", epochs=0.5).fit()
    same = [all(torch.allclose(p, q, rtol=1e-5, atol=1e-7) for p, q in zip(
        method.members[name].parameters(), together.members[name].parameters(), strict=True))
        for name in ("student", "peer1")]
    assert same == [True, False]


def test_what_cannot_be_is_told():
    with pytest.raises(Mistake, match="two networks or more; got copies=0 and no peers"):
        build(copies=0)
    several = build(form="alternating")
    under = several.under(Learned(several.process, several.searchable()))
    with pytest.raises(Mistake, match="this method takes 2 turns"):
        Search(under, Classification(), lambda step: setting().sample)
