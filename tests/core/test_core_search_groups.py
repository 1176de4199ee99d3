"""Searching terms of networks that learn together: slopes of what ships, each stepped by its own optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from core_reference import searched, take_step, through_the_step, used, watch
from core_tiny import Plain, clock, network, setting
from torch import nn

from limbeck.config import OptimizerSettings
from limbeck.errors import Mistake
from limbeck.method import Method, Stage
from limbeck.methods.afd import afd
from limbeck.methods.dml import dml
from limbeck.methods.ffsd import ffsd
from limbeck.methods.kdcl import kdcl
from limbeck.methods.okddip import okddip
from limbeck.search import Search
from limbeck.search.response import check_exact
from limbeck.training.optimizers import build_optimizer

pytestmark = pytest.mark.usefixtures("double")
NOW = clock(3)


def fresh() -> Any:
    return network(Plain(), factory=Plain)


GROUPS: dict[str, Callable[[], Method | list[Stage]]] = {
    "dml": lambda: dml(fresh(), setting(), temperature=2.0),
    "kdcl": lambda: kdcl(fresh(), setting(), own_views=False),
    "okddip": lambda: okddip(fresh(), setting(), copies=2, warm_up=0.0),
    "ffsd": lambda: ffsd(fresh(), setting(), diversity=1e-2, warm_up=0.0),
}


def group(name: str) -> tuple[Method, Mapping[str, Mapping[str, Any]]]:
    """A method on tiny networks, and what members are stepped by otherwise."""
    torch.manual_seed(1)
    made = GROUPS[name]()
    return (made[0].method, made[0].optimizers) if isinstance(made, list) else (made, {})


@pytest.mark.parametrize("student", ["sgd", "adamw"])
@pytest.mark.parametrize("name", GROUPS)
def test_slopes_are_those_of_differentiating_through_the_step(name: str, student: str) -> None:
    """FFSD's carriers have an Adam with L2 decay, through which no search looks; it need not."""
    method, own = group(name)
    search = searched(method)
    settings = OptimizerSettings(name=student, lr=1e-2, nesterov=True, weight_decay=1e-2)
    optimizer = used(search, build_optimizer(search.method, settings, own))
    expected, found = through_the_step(search, optimizer, NOW), watch(search)
    take_step(search.method, optimizer, NOW, search)
    torch.testing.assert_close(found[0], expected["weights"], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(search.process.raw.grad, expected["raw"], rtol=1e-7, atol=1e-12)
    pulling = {n for n, slope in zip(search.process.searched, expected["weights"].tolist(), strict=True) if slope}
    assert set(search.silent or ()) == set(search.process.searched) - pulling
    assert pulling


def test_the_terms_that_have_slopes_are_those_of_what_ships() -> None:
    search = searched(group("ffsd")[0])
    optimizer = used(search, build_optimizer(search.method, OptimizerSettings(lr=1e-2), {}))
    take_step(search.method, optimizer, NOW, search)
    loud = set(search.process.searched) - set(search.silent or ())
    assert loud == {"leader/kl", "leader/fused", "leader/decoded", "leader/carried-stage1"}
    assert search.method.supervised == "leader/ce"


def test_several_turns_are_refused_with_a_reason() -> None:
    for method in (dml(fresh(), setting(), form="alternating"), afd(fresh(), setting())[0].method):
        with pytest.raises(Mistake, match=r"takes 2 turns in a step, for which its slopes would not be exact. Use"):
            searched(method)


def test_only_who_is_looked_through_needs_an_optimiser_that_can_be() -> None:
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([{"params": [one], "weight_decay": 0.0}, {"params": [other], "weight_decay": 0.1}])
    check_exact(optimizer, [one])
    check_exact(torch.optim.RMSprop([other]), [one])
    for asked in ([other], [one, other], None):
        with pytest.raises(Mistake, match=r"Adam with L2 weight decay 0\.1"):
            check_exact(optimizer, asked)


def test_a_leader_stepped_by_adam_with_l2_decay_is_refused() -> None:
    method, own = group("ffsd")
    search: Search = searched(method)
    optimizer = build_optimizer(search.method, OptimizerSettings(), {**own, "leader": {"name": "adam"}})
    with pytest.raises(Mistake, match="a search through Adam needs weight decay beside the gradient"):
        take_step(search.method, optimizer, NOW, search)
