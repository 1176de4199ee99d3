"""What must hold for every method, from one table."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from catalogue import NETS, ROWS, Row, batch, built

from limbeck.config import OptimizerSettings
from limbeck.method import Method, Step
from limbeck.methods import METHODS
from limbeck.optimizers import build_optimizer
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.seen import Clock
from limbeck.slopes import Passes, exact, forward

CLOCK = Clock(5, 20, 10)
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
searchable = pytest.mark.parametrize("row", [row for row in ROWS if row.method != "none"], ids=lambda row: row.label)


def losses_of(method: Method, images: int = 8, **options: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    seen = method.see(batch(images), CLOCK, **options)
    losses = method(seen, method.process.active(CLOCK))
    weights = method.process.weights(CLOCK)
    total = sum(weights[method.process.names.index(name)] * loss for name, loss in losses.items())
    return total, losses


def test_every_method_of_the_package_has_a_row() -> None:
    assert {row.method for row in ROWS if "+" not in row.method} == set(METHODS)


@rows
def test_weighted_loss_falls_on_eight_images(row: Row) -> None:
    method = built(row)
    optimizer = build_optimizer(method, OptimizerSettings(lr=row.lr, weight_decay=0), {})
    values = []
    for _ in range(25):
        total, _ = losses_of(method)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.9 * values[0]


@rows
def test_each_terms_gradient_reaches_only_whom_it_says(row: Row) -> None:
    method = built(row)
    _, losses = losses_of(method)
    members = {name: list(member.parameters()) for name, member in method.members.items()}
    for name, loss in losses.items():
        allowed = next((who for prefix, who in row.pulls.items() if name.startswith(prefix)), None)
        assert allowed is not None, f"term {name} has no entry in the row's pulls"
        for member, parameters in members.items():
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            reached = any(g is not None and bool(g.abs().sum() > 0) for g in found)
            assert reached == (member in allowed), f"{name} -> {member}"


@rows
def test_one_backward_equals_separate_backwards(row: Row) -> None:
    method = built(row)
    parameters = list(method.parameters())
    total, losses = losses_of(method)
    together = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    weights = dict(zip(method.process.names, method.process.weights(CLOCK), strict=True))
    apart = [torch.zeros_like(p) for p in parameters]
    for name, loss in losses.items():
        for place, g in zip(apart, torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True), strict=True):
            place += 0 if g is None else weights[name] * g
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(torch.zeros_like(other) if one is None else one, other, rtol=1e-3, atol=1e-4)


@rows
def test_every_parameter_has_one_owner(row: Row) -> None:
    method = built(row)
    owned = [id(p) for parameters in method.owners().values() for p in parameters]
    assert sorted(owned) == sorted(id(p) for p in method.parameters())


@rows
def test_deployed_network_is_plain(row: Row) -> None:
    method = built(row)
    losses_of(method)
    deployed = method.student().deployed()
    plain = NETS[row.networks[0]]()
    plain.load_state_dict(deployed.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in deployed.modules())
    images = method.student().normalise(batch().images)
    torch.testing.assert_close(deployed.eval()(images), plain.eval()(images))


@rows
def test_bf16_autocast_steps_and_stays_close(row: Row) -> None:
    method = built(row)
    exact_total, _ = losses_of(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, losses = losses_of(method)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    torch.testing.assert_close(total, exact_total, rtol=0.05, atol=0.05)


@rows
def test_inactive_terms_cost_nothing(row: Row) -> None:
    method = built(row)
    seen = method.see(batch(), CLOCK)
    losses = method(seen, frozenset({"ce"}))
    assert set(losses) == {"ce"}
    assert set(seen._outputs) == {"student"}


@searchable
def test_search_slopes_agree_between_reverse_and_forward(row: Row) -> None:
    method = copy.deepcopy(built(row)).double()
    method.frozen = {name: teacher.double() for name, teacher in method.frozen.items()}
    process = Learned(method.process, method.searchable())
    process.raw = process.raw.double()
    method = method.under(process)
    images = batch()
    images = type(images)(images.images.double(), images.targets, images.index)
    step = Step(method, images, CLOCK, torch.optim.SGD(method.parameters(), lr=0.1))
    step.seen = method.see(images, CLOCK, aliased=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step.losses = method(step.seen, process.active(CLOCK))
        step.weights = process.weights(CLOCK).double()
        sum(step.weights[process.names.index(n)] * loss for n, loss in step.losses.items()).backward()
        start = {n: p.detach().clone() for n, p in method.named_parameters()}
        torch.manual_seed(3)
        direction = {n: torch.randn_like(p) for n, p in start.items() if n.startswith("members.student")}
        passes = Passes(method)
        reverse, ahead = (f(passes, step, start, direction, process.searched) for f in (exact, forward))
    assert reverse.keys() == ahead.keys() == set(process.searched)
    for name in reverse:
        torch.testing.assert_close(reverse[name], ahead[name], rtol=1e-9, atol=1e-12)


@searchable
def test_a_search_moves_the_weights_of_any_method(row: Row) -> None:
    method = built(row)
    method = method.under(Learned(method.process, method.searchable()))
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.01), {})
    search = Search(method, method.terms["ce"].task, lambda step: batch(seed=7))
    before = method.process.raw.clone()
    step = Step(method, batch(), CLOCK, optimizer)
    search.before(step)
    step.seen = method.see(step.batch, CLOCK, aliased=True)
    step.losses = method(step.seen, method.process.active(CLOCK))
    step.weights = method.process.weights(CLOCK)
    sum(step.weights[method.process.names.index(n)] * loss for n, loss in step.losses.items()).backward()
    optimizer.step()
    search.after(step)
    assert (method.process.raw != before).all() or len(before) == 1 and method.process.raw != before
    assert not search.silent
