"""OKDDip: totals on fixed answers and features, who is pulled by a target, both forms."""

from __future__ import annotations

import pytest
import torch
from features_tiny import losses, parameters, total, weights_of
from methods_tiny import NOW, ce, kl, logits, setting
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.members.branches import Branch
from limbeck.methods.okddip import okddip
from limbeck.process import exponential_ramp
from limbeck.seen import Clock

RAMP = exponential_ramp(1.0, over=80 / 300)(NOW)
NAMES = ("student", "peer1", "peer2", "peer3")


def known() -> dict[str, dict[str, Tensor]]:
    chance = torch.Generator().manual_seed(6)
    return {name: {"logits": z, "pooled": torch.randn(8, 16, dtype=torch.float64, generator=chance).requires_grad_()}
            for name, z in logits(*NAMES).items()}


def test_total_is_the_papers() -> None:
    method, given = okddip(tiny(), setting()).double(), known()
    attention = method.members["attention"]
    assert attention.query.weight.shape == (2, 16)  # 8 times narrower
    assert parameters(attention) == 2 * 2 * 16
    peers = [given[name] for name in NAMES[1:]]
    expected = sum(ce(own["logits"]) for own in given.values())
    for a in peers:
        query = a["pooled"] @ attention.query.weight.T
        fit = torch.stack([(query * (b["pooled"] @ attention.key.weight.T)).sum(1) for b in peers], dim=1).exp()
        weight = fit / fit.sum(1, keepdim=True)
        target = sum(weight[:, i, None] * b["logits"] for i, b in enumerate(peers))
        expected = expected + RAMP * kl(a["logits"], target, 3.0)
    expected = expected + RAMP * kl(given["student"]["logits"], sum(b["logits"] for b in peers) / 3, 3.0)
    found = total(method, given)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    leaves = [x for own in given.values() for tap, x in own.items() if own is not given["student"] or tap == "logits"]
    leaves += list(attention.parameters())
    for one, other in zip(*(torch.autograd.grad(x, leaves, retain_graph=True) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("detach", [False, True])
def test_targets_pull_the_peers_only_where_they_are_live_and_the_attention_always(detach: bool) -> None:
    method, given = okddip(tiny(), setting(), detach=detach), known()
    found = losses(method, given)
    own = [given[name]["logits"] for name in NAMES]

    def pulled(name: str) -> list[bool]:
        slopes = torch.autograd.grad(found[name], own, allow_unused=True, retain_graph=True)
        return [g is not None for g in slopes]

    assert pulled("student/mean") == [True, *[not detach] * 3]
    assert pulled("peer2/attention") == [False, not detach, True, not detach]
    for p in method.members["attention"].parameters():
        assert torch.autograd.grad(found["peer2/attention"], p, retain_graph=True)[0].abs().sum() > 0


def test_peers_are_branches_on_the_leaders_trunk_or_networks() -> None:
    student = tiny()
    branches, networks = okddip(student, setting()), okddip(tiny(), setting(), form="networks", copies=2)
    assert branches.student() is student
    assert [isinstance(branches.members[name], Branch) for name in NAMES[1:]] == [True] * 3
    assert [type(networks.members[name]) for name in NAMES[:3]] == [Network] * 3
    assert "peer3" not in networks.members
    weights = weights_of(okddip(tiny(), setting(), kl=0.5), Clock(300, 301, 1))
    assert (weights["peer1/attention"], weights["student/mean"], weights["peer1/ce"]) == (0.5, 0.5, 1)


def test_given_peers_are_as_wide_as_one_another_whatever_the_leader_is() -> None:
    method = okddip(tiny(), setting(), peers=[tiny(12), tiny(12, seed=3)])
    assert method.members["attention"].query.weight.shape == (3, 24)
    with pytest.raises(Mistake, match=r"features of one width; got \[24, 20\]"):
        okddip(tiny(), setting(), peers=[tiny(12), tiny(10)])


def test_nobody_beside_the_student_is_refused() -> None:
    with pytest.raises(Mistake, match="it takes two or more; got 1"):
        okddip(tiny(), setting(), copies=0)
    with pytest.raises(Mistake, match="two networks or more"):
        okddip(tiny(), setting(), copies=0, form="networks")
