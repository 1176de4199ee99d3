"""KDCL: every target against its formula, who looks at which view, and weights found on images that none trains on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from methods_tiny import LABELS, NOW, ce, kl, logits, losses, setting, total

from limbeck.config import Job
from limbeck.contract.trial import batch, split, tiny
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.jobs.parts import Parts
from limbeck.losses import linear_target
from limbeck.method import Method, Setting
from limbeck.methods.kdcl import kdcl
from limbeck.progress import Display
from limbeck.seen import Clock
from limbeck.training import engine

HELD_OUT = Batches(split(12), 8, train=False)


def build(job: Setting | None = None, **options) -> Method:
    return kdcl(tiny(), job or replace(setting(), hold_out=lambda part: HELD_OUT), **options)


def naive(z: torch.Tensor) -> torch.Tensor:
    rows = [max(z[:, n], key=lambda row, y=y: row.softmax(0)[y].item()) for n, y in enumerate(LABELS.tolist())]
    return torch.stack(rows)


def minlogit(z: torch.Tensor) -> torch.Tensor:
    rows = [[min(one[n, c] - one[n, y] for one in z) for c in range(z.shape[2])] for n, y in enumerate(LABELS.tolist())]
    return torch.tensor(rows, dtype=z.dtype)


@pytest.mark.parametrize(("kind", "target"), [
    ("naive", naive), ("minlogit", minlogit), ("linear", lambda z: linear_target(list(z), LABELS)),
    ("general", lambda z: 2 * (z / 2).softmax(2).mean(0).log())])
def test_total_pulls_everyone_to_one_target(kind, target):
    z = logits("student", "peer1", "peer2")
    made = target(torch.stack([own.detach() for own in z.values()]))
    expected = sum(ce(own) + kl(own, made, 2.0) for own in z.values())
    torch.testing.assert_close(total(build(target=kind, copies=2), z), expected, rtol=1e-6, atol=1e-6)


def test_weights_and_temperature_are_where_the_formula_has_them():
    z = logits("student", "peer1")
    made = minlogit(torch.stack([own.detach() for own in z.values()]))
    expected = sum(0.3 * ce(own) + 0.7 * kl(own, made, 3.0) for own in z.values())
    torch.testing.assert_close(total(build(ce=0.3, kl=0.7, temperature=3.0), z), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["naive", "minlogit", "linear", "general"])
def test_nobody_feels_the_target(kind):
    z = logits("student", "peer1")
    loss = losses(build(target=kind), z)["student/target"]
    gradients = torch.autograd.grad(loss, list(z.values()), allow_unused=True)
    assert gradients[0].abs().max() > 0
    assert gradients[1] is None


def test_each_network_looks_at_a_view_of_its_own_in_training_alone():
    method, images = build(copies=2).train(), batch(views=2)
    assert method.views == ("same", "same")
    seen = method.see(images, NOW)
    looked = {"student": images.images, "peer1": images.views[0], "peer2": images.views[1]}
    for name, own in looked.items():
        torch.testing.assert_close(seen[f"{name}.logits"], method.members[name].logits(own))
    method.eval()
    seen = method.see(batch(), NOW)
    for name in looked:
        torch.testing.assert_close(seen[f"{name}.logits"], method.members[name].logits(images.images))


def test_all_may_look_at_the_same():
    peer = tiny(12)
    build(peers=[peer])
    method = build(peers=[peer], own_views=False)
    assert method.views == ()
    assert [network.view for network in (method.members["student"], peer)] == [None, None]


def test_general_weighs_by_the_errors_on_held_out_images_at_each_epochs_end():
    method = build(target="general", peers=[tiny(10, seed=4)]).train()
    mixture, networks = method.members["target"], [method.members[name] for name in ("student", "peer1")]
    for network in networks:
        network.module.fc.weight.data *= 150  # beliefs that differ, or the best mixture is one of them alone
    seen = method.see(batch(views=1), NOW)
    mixture.after_step(seen, Clock(8, 20, 10))
    assert mixture.weights.tolist() == [0.5, 0.5]
    before = {name: x.clone() for name, x in method.state_dict().items() if "weights" not in name}
    with torch.no_grad():
        mixture.after_step(seen, Clock(9, 20, 10))
    assert all(torch.equal(x, method.state_dict()[name]) for name, x in before.items())
    images = list(HELD_OUT.epoch())
    labels = F.one_hot(torch.cat([one.targets for one in images]), 4)
    answers = [torch.cat([network.eval().logits(one.images) for one in images]).detach() for network in networks]
    errors = [answer.div(2).softmax(1).double() - labels for answer in answers]
    covariance = torch.tensor([[(a * b).sum(1).mean() for b in errors] for a in errors]) + 1e-6 * torch.eye(2)
    expected = torch.linalg.solve(covariance, torch.ones(2).double()).clamp(min=0)
    torch.testing.assert_close(mixture.weights.double(), expected / expected.sum(), rtol=1e-3, atol=1e-4)
    assert 0.2 < mixture.weights[0] < 0.3
    z = logits("student", "peer1")
    mixed = sum(w * own.div(2).softmax(1) for w, own in zip(mixture.weights.double(), z.values(), strict=True))
    torch.testing.assert_close(losses(method, z)["peer1/target"], kl(z["peer1"], 2 * mixed.log(), 2.0).detach(),
                               rtol=1e-6, atol=1e-6)


def test_a_network_that_only_harms_gets_no_weight_and_the_target_stays_finite():
    method = build(target="general")
    method.members["target"].weights.copy_(torch.tensor([1.0, 0.0]))
    z = logits("student", "peer1")
    found = losses(method, z)
    assert found["student/target"].abs() < 1e-7
    torch.testing.assert_close(found["peer1/target"], kl(z["peer1"], z["student"], 2.0), rtol=1e-6, atol=1e-6)


def test_general_in_a_job_trains_on_nothing_that_it_weighs_by():
    job = Job.model_validate({"data": "digits", "student": "digits_small",
                              "method": {"name": "kdcl", "target": "general", "held_out": 0.2}})
    parts = Parts("distill", job, engine.start("cpu"), Display(quiet=True))
    everyone = set(parts.splits["train"].index.tolist())
    held_out = parts.method.members["target"].held_out
    kept = {row for images in held_out.epoch() for row in images.index.tolist()}
    left = set(parts.splits["train"].index.tolist())
    assert len(kept) == pytest.approx(0.2 * len(everyone), abs=10)
    assert kept | left == everyone
    assert not kept & left
    assert set(parts.batches("train", train=True).split.index.tolist()) == left


def test_what_cannot_be_is_told():
    with pytest.raises(Mistake, match="target=general finds its weights on held-out images"):
        build(setting(), target="general")
    method = build()
    unlabelled = replace(batch(views=1), targets=None)
    with pytest.raises(Mistake, match="kdcl makes its target by the labels"):
        method(method.see(unlabelled, NOW), frozenset({"student/target"}))
