"""Each estimator's <g_i, d> against the inner product of two gradients, which the step's own graph gives."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from core_reference import METHODS
from core_tiny import Plain, batch, clock, network
from torch import Tensor, nn

from limbeck.members import Member
from limbeck.method import Method, Step
from limbeck.process import Scheduled
from limbeck.search import slopes
from limbeck.search.slopes import ESTIMATORS, Passes
from limbeck.seen import Outputs, Seen
from limbeck.tasks.classification import Classification
from limbeck.terms import Supervise, Term

pytestmark = pytest.mark.usefixtures("double")
EXACT = ("exact", "forward")


class Case:
    """A step of a method, its backward done, and a random direction of the student's parameters."""

    def __init__(self, method: Method, reach: float = 1.0):
        method.train()
        self.method, self.passes = method, Passes(method)
        process, now = method.process, clock(6)
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        self.step = Step(method, batch(), now, optimizer, method.see(batch(), now, aliased=True))
        self.step.losses = method(self.step.seen, process.active(now))
        self.step.weights = process.weights(now)
        places = [process.names.index(name) for name in self.step.losses]
        (self.step.weights[places] * torch.stack(list(self.step.losses.values()))).sum().backward(retain_graph=True)
        self.start = {name: p.detach().clone() for name, p in method.named_parameters()}
        self.direction = {name: reach * torch.randn_like(p) for name, p in self.start.items()
                          if name.startswith("members.student.")}
        self.terms = [name for name in self.step.losses if name != "ce"]

    def estimate(self, estimator: str) -> Tensor:
        found = ESTIMATORS[estimator](self.passes, self.step, self.start, self.direction, self.terms)
        return torch.stack([found[name] for name in self.terms])

    def expected(self) -> Tensor:
        parameters = dict(self.method.named_parameters())
        carriers = [parameters[name] for name in self.direction]
        gradients = [torch.autograd.grad(self.step.losses[name], carriers, retain_graph=True, allow_unused=True)
                     for name in self.terms]
        return torch.stack([sum((g * d).sum() for g, d in zip(own, self.direction.values(), strict=True)
                                if g is not None) for own in gradients])


def case(name: str, *, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0, reach: float = 1.0) -> Case:
    student = network(Plain(activation=activation, dropout=dropout))
    return Case(METHODS[name](student, network(Plain(12))), reach)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("estimator", EXACT)
@pytest.mark.parametrize("name", METHODS)
def test_exact_estimators_are_inner_products(name, estimator, dropout):
    made = case(name, dropout=dropout)
    torch.testing.assert_close(made.estimate(estimator), made.expected(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("estimator", "order"), [("central", 2), ("onesided", 1)])
@pytest.mark.parametrize("name", METHODS)
def test_differences_converge_at_their_order(monkeypatch, name, estimator, order):
    made, errors = case(name, activation=nn.GELU), []
    for reach in (0.02, 0.01, 0.005):
        monkeypatch.setattr(slopes, "_REACH", reach)
        errors.append((made.estimate(estimator) - made.expected()).abs().sum().item())
    assert errors[-1] > 0
    for wide, narrow in pairwise(errors):
        assert math.log2(wide / narrow) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("estimator", ["central", "onesided"])
def test_a_difference_does_not_depend_on_the_length_of_the_direction(estimator):
    made = case("distpro", activation=nn.GELU)
    once = made.estimate(estimator)
    made.direction = {name: 1000 * d for name, d in made.direction.items()}
    torch.testing.assert_close(made.estimate(estimator), 1000 * once, rtol=1e-8, atol=0)


def test_one_side_uses_the_steps_losses_only_where_they_are_precise():
    made = case("distpro", activation=nn.GELU)
    right = made.estimate("onesided")
    made.step.losses = {name: loss + 1 for name, loss in made.step.losses.items()}
    assert not torch.allclose(made.estimate("onesided"), right)
    made.step.precise = False
    torch.testing.assert_close(made.estimate("onesided"), right, rtol=1e-8, atol=1e-10)


class Look(Member):
    """Reads the student live, and draws."""

    reads = ("student.stage1",)

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, seen: Seen) -> Outputs:
        return {"mean": self.drop(seen["student.stage1"]).mean((2, 3))}


class Square(Term):
    """The mean square of what it reads, after dropout of its own."""

    def __init__(self, address: str):
        super().__init__()
        self.reads, self.owner = (address,), "student"
        self.drop = nn.Dropout(0.5)

    def forward(self, seen: Seen) -> Tensor:
        return self.drop(seen[self.reads[0]]).square().mean()


@pytest.mark.parametrize("first", ["student.pooled", "look.mean"])
@pytest.mark.parametrize("estimator", EXACT)
def test_dropout_is_replayed_in_the_order_in_which_members_ran(estimator, first):
    """A student that ran before the member that reads it must not run inside it, between its random numbers."""
    second = {"student.pooled": "look.mean", "look.mean": "student.pooled"}[first]
    terms = {"first": Square(first), "second": Square(second), "ce": Supervise("student", Classification())}
    made = Case(Method({"student": network(Plain(dropout=0.3)), "look": Look()}, terms,
                       Scheduled(dict.fromkeys(terms, 1.0))))
    torch.testing.assert_close(made.estimate(estimator), made.expected(), rtol=1e-9, atol=1e-12)


def test_passes_know_the_teacher_and_leave_every_buffer_alone():
    made = case("reviewkd", dropout=0.4)
    calls: list[int] = []
    made.method.frozen["teacher"].register_forward_hook(lambda *_: calls.append(1))
    buffers = copy.deepcopy(dict(made.method.named_buffers()))
    for estimator in ESTIMATORS:
        made.estimate(estimator)
    assert calls == []
    assert [name for name, b in made.method.named_buffers() if not torch.equal(b, buffers[name])] == []


def test_a_pass_takes_other_parameters_and_gives_any_address():
    made = case("kd")
    made.method.members["student"].tap(["stage1"])
    moved, twin = {name: 1.1 * x for name, x in made.start.items()}, copy.deepcopy(made.method)
    losses = made.passes.losses(made.method.see(batch(), clock()), moved, frozenset({"kl"}))
    outputs = made.passes.outputs(made.method.see(batch(), clock()), moved, ["student.stage1"])
    twin.load_state_dict(moved, strict=False)
    seen = twin.see(batch(), clock())
    assert losses.keys() == {"kl"}
    assert outputs.keys() == {"student.stage1"}
    torch.testing.assert_close(losses, twin(seen, frozenset({"kl"})), rtol=0, atol=0)
    torch.testing.assert_close(outputs["student.stage1"], seen["student.stage1"], rtol=0, atol=0)
    assert not torch.allclose(losses["kl"], made.step.losses["kl"])
