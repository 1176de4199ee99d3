"""The search: its slopes are those of differentiating through the real step, and it leaves no other trace."""

from __future__ import annotations

import copy
import io
import logging
from dataclasses import replace

import pytest
import torch
from core_reference import FORMULAS, METHODS, OPTIMIZERS, searched, take_step, through_the_step, used, warm, watch
from core_tiny import Plain, batch, clock, network, setting
from torch import Tensor, nn

from limbeck.config import OptimizerSettings
from limbeck.errors import Mistake
from limbeck.losses import soft_kl
from limbeck.method import Method, Step, Turn
from limbeck.methods.none import none
from limbeck.optimizer_parts import parts
from limbeck.process import Learned, Scheduled
from limbeck.search import Search
from limbeck.seen import random_state
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise
from limbeck.training.optimizers import build_optimizer

pytestmark = pytest.mark.usefixtures("double")
ORDERS = ("real", "paper")
NOW = clock(3)


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-8, *, scale: Tensor | None = None) -> None:
    """Asserts that two vectors agree, relative to the largest entry."""
    largest = (expected if scale is None else scale).abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def trace(search: Search, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that a weight update must leave alone: parameters, buffers, modes, the optimiser's memory."""
    method = search.method
    state = {f"method.{name}": x.clone() for name, x in (*method.named_parameters(), *method.named_buffers())}
    state |= {f"mode.{name}": torch.tensor(m.training) for name, m in method.named_modules()}
    for i, parameter in enumerate(method.parameters()):
        memory = next((part.state[parameter] for part in parts(optimizer) if parameter in part.state), {})
        state |= {f"memory.{i}.{key}": x.clone() for key, x in memory.items() if isinstance(x, Tensor)}
    return state


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """Asserts equality to the bit."""
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("normalise", FORMULAS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", METHODS)
def test_slopes_are_those_of_differentiating_through_the_step(name, kind, normalise):
    start = searched(name, normalise=normalise)
    optimizer = warm(start, kind)
    expected = through_the_step(start, optimizer, NOW)
    assert expected["weights"].abs().min() > 0
    for estimator in ("exact", "forward"):
        for order in ORDERS:
            twin, search = copied(start, optimizer, estimator=estimator, order=order)
            found = watch(search)
            take_step(search.method, twin, NOW, search)
            near(found[0], expected["weights"])
            near(search.process.raw.grad, expected["raw"], scale=search.process.scale * expected["weights"])


def copied(search: Search, optimizer: torch.optim.Optimizer, **options) -> tuple[torch.optim.Optimizer, Search]:
    """The same state under other options of the search: an optimiser of the copy's parameters, and the copy."""
    method = copy.deepcopy(search.method)
    twin = type(optimizer)(method.parameters(), lr=1.0)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return twin, Search(method, search.task, search.held_out, **options)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_reference_takes_the_optimisers_own_step(kind):
    search = searched("distpro")
    optimizer = warm(search, kind)
    expected = through_the_step(search, optimizer, NOW)
    take_step(search.method, optimizer, NOW)
    for name, parameter in search.method.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[f"after.{name}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("student", "review"), [("sgd", "adamw"), ("adamw", "sgd")])
@pytest.mark.parametrize("order", ORDERS)
def test_slopes_are_exact_where_members_have_optimisers_of_several_kinds(order, student, review):
    settings = OptimizerSettings(name=student, lr=1e-2, nesterov=True, weight_decay=1e-2)
    for estimator in ("exact", "forward"):
        torch.manual_seed(1)
        search = searched("reviewkd", estimator=estimator, order=order)
        optimizer = used(search, build_optimizer(search.method, settings, {"review": {"name": review, "lr": 1e-3}}))
        assert len(parts(optimizer)) == 2
        expected, found = through_the_step(search, optimizer, NOW), watch(search)
        take_step(search.method, optimizer, NOW, search)
        near(found[0], expected["weights"])
        for name, parameter in search.method.named_parameters():
            if order == "real":  # in the paper's order the weights have moved before the step
                torch.testing.assert_close(parameter.detach(), expected[f"after.{name}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("order", ORDERS)
def test_slopes_are_exact_with_dropout_in_the_student(order, mode):
    for estimator in ("exact", "forward"):
        torch.manual_seed(1)
        search = searched("distpro", dropout=0.3, estimator=estimator, order=order, mode=mode)
        optimizer = warm(search, "nesterov")
        state = torch.get_rng_state()
        expected = through_the_step(search, optimizer, NOW)
        torch.set_rng_state(state)
        found = watch(search)
        take_step(search.method, optimizer, NOW, search)
        near(found[0], expected["weights"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normalise", ["l1", "biased-l1"])
@pytest.mark.parametrize("name", ["distpro", "reviewkd"])
def test_a_term_of_weight_zero_has_its_slope(name, normalise, order):
    for estimator in ("exact", "forward"):
        torch.manual_seed(1)
        search = searched(name, normalise=normalise, estimator=estimator, order=order)
        search.process.raw[1] = 0.0
        optimizer = warm(search, "nesterov")
        expected = through_the_step(search, optimizer, NOW)
        assert expected["weights"][1].abs() > 1e-3 * expected["weights"].abs().max()
        found = watch(search)
        take_step(search.method, optimizer, NOW, search)
        near(found[0], expected["weights"])


def test_a_ramp_that_starts_at_zero_moves_nothing_at_its_first_step():
    search = searched("reviewkd")
    optimizer, before = OPTIMIZERS["nesterov"](search.method.parameters()), search.process.raw.clone()
    take_step(search.method, optimizer, clock(0), search)
    assert torch.equal(search.process.raw.grad, torch.zeros(3))
    take_step(search.method, optimizer, clock(1), search)
    assert search.process.raw.isfinite().all()
    assert not torch.equal(search.process.raw, before)


@pytest.mark.parametrize(("kind", "kappa"), [("plain", 1.0), ("heavy ball", 1.0), ("nesterov", 1.9)])
def test_slopes_under_the_biased_softmax_sum_to_what_it_leaves_out(kind, kappa):
    """sum_j g_j = -lr kappa (w . u) w_0: the total strength is learned as well."""
    search = searched("distpro")
    optimizer = warm(search, kind)
    found = watch(search)
    take_step(search.method, optimizer, NOW, search)
    weights = torch.softmax(torch.cat([torch.linspace(-0.7, 1.5, 4), torch.ones(1)]), dim=0)
    u = found[0] / (-0.1 * kappa)
    expected = -0.1 * kappa * (weights[:-1] @ u) * weights[-1] * search.process.scale
    torch.testing.assert_close(search.process.raw.grad.sum(), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", ["plain", "heavy ball", "nesterov"])
def test_lagged_slopes_take_the_held_out_gradient_before_the_step(kind):
    search = searched("distpro", order="lagged")
    optimizer = warm(search, kind)
    method, student = search.method, search.method.student()
    losses = method(method.see(batch(seed=3), NOW), method.process.active(NOW))
    images = search.held_out(3)
    held_out = nn.functional.cross_entropy(student.logits(images.images), images.targets)
    parameters = list(student.module.parameters())
    v = torch.autograd.grad(held_out, parameters)
    factor = -0.1 * (1.9 if kind == "nesterov" else 1.0)
    gradients = [torch.autograd.grad(losses[name], parameters, retain_graph=True, allow_unused=True)
                 for name in method.process.searched]
    expected = torch.stack([factor * sum((g * d).sum() for g, d in zip(own, v, strict=True) if g is not None)
                            for own in gradients])
    found = watch(search)
    take_step(method, optimizer, NOW, search)
    near(found[0], expected)


@pytest.mark.parametrize("estimator", ["exact", "forward", "central", "onesided"])
@pytest.mark.parametrize("order", ["real", "paper", "lagged"])
def test_an_update_changes_the_raw_weights_alone(monkeypatch, order, estimator):
    search = searched("reviewkd", dropout=0.2, estimator=estimator, order=order)
    optimizer, seen = warm(search, "nesterov"), []
    call = "after" if order == "real" else "before"
    update, raw = getattr(search, call), search.process.raw.clone()

    def watched(step) -> None:
        before = trace(search, optimizer)
        update(step)
        same(before, trace(search, optimizer))
        seen.append(call)

    monkeypatch.setattr(search, call, watched)
    take_step(search.method, optimizer, NOW, search)
    assert seen == [call]
    assert not torch.equal(search.process.raw, raw)


@pytest.mark.parametrize("order", ORDERS)
def test_adams_memory_survives_a_tentative_step(order):
    search = searched("distpro", order=order)
    optimizer = OPTIMIZERS["adamw"](search.method.parameters())
    search.optimizer = torch.optim.SGD([search.process.raw], lr=1e-30)
    plain, alone = copied(search, optimizer)
    for step in range(2):  # from an optimiser that remembers nothing yet
        take_step(search.method, optimizer, clock(step), search)
        take_step(alone.method, plain, clock(step))
        same(trace(alone, plain), trace(search, optimizer))


def test_a_tentative_step_of_several_kinds_is_forgotten():
    search = searched("reviewkd", order="paper")
    optimizer = build_optimizer(search.method, OptimizerSettings(), {"review": {"name": "adamw"}})
    for seen in (0, 2):  # from optimisers that remember nothing, and from such as do
        used(search, optimizer, seen)
        before = trace(search, optimizer)
        search.before(Step(search.method, batch(), clock(2), optimizer))
        same(before, trace(search, optimizer))


@pytest.mark.parametrize("estimator", ["exact", "forward", "central", "onesided"])
@pytest.mark.parametrize("order", ["real", "paper", "lagged"])
def test_statistics_move_once_a_step_and_training_is_that_without_a_search(order, estimator):
    search = searched("distpro", estimator=estimator, order=order)
    search.optimizer = torch.optim.SGD([search.process.raw], lr=1e-30)
    optimizer = OPTIMIZERS["heavy ball"](search.method.parameters())
    plain, alone = copied(search, optimizer)
    for step in range(2):
        take_step(search.method, optimizer, clock(step), search)
        take_step(alone.method, plain, clock(step))
    assert search.method.student().module.stage1.norm.num_batches_tracked == 2
    same(trace(alone, plain), trace(search, optimizer))


def test_random_numbers_are_never_drawn_twice():
    """Replaying the student's random state must not wind back the dropout of a connector."""
    student, teacher = network(Plain()), network(Plain(12))
    terms = {"ce": Supervise("student", Classification()),
             "kl": Match("student.logits", "teacher.logits", soft_kl_of_two, connect=nn.Dropout(0.5))}
    method = Method({"student": student}, terms, Scheduled({"ce": 1.0, "kl": 1.0}), frozen={"teacher": teacher})
    search = searched(method)
    optimizer, states = OPTIMIZERS["plain"](search.method.parameters()), []
    for step in range(4):
        states.append(random_state(torch.device("cpu")))
        take_step(search.method, optimizer, clock(step), search)
    assert not any(torch.equal(a, b) for i, a in enumerate(states) for b in states[:i])


def soft_kl_of_two(student: Tensor, teacher: Tensor) -> Tensor:
    return soft_kl(student, teacher, temperature=2.0)


@pytest.mark.parametrize("estimator", ["exact", "forward"])
def test_a_term_that_does_not_pull_the_student_is_named(caplog, estimator):
    search = searched(with_peer(), estimator=estimator)
    optimizer, found = warm(search, "plain", 1), watch(search)
    with caplog.at_level(logging.WARNING, "limbeck.search"):
        take_step(search.method, optimizer, clock(1), search)
        take_step(search.method, optimizer, clock(2), search)
    assert found[0][0] != 0
    assert found[0][1] == 0
    assert [record.getMessage() for record in caplog.records] == [
        "these terms do not pull 'student' within one step, so their slope is zero: peer/kl"]
    assert search.silent == ("peer/kl",)


def with_peer() -> Method:
    """A peer that learns beside the student, from the teacher alone."""
    kl = {name: Match(f"{name}.logits", "teacher.logits", soft_kl_of_two) for name in ("student", "peer")}
    terms = {"ce": Supervise("student", Classification()), "kl": kl["student"], "peer/kl": kl["peer"]}
    return Method({"student": network(Plain()), "peer": network(Plain())}, terms,
                  Scheduled({"ce": 1.0, "kl": 1.0, "peer/kl": 1.0}), frozen={"teacher": network(Plain(12))})


def test_weights_are_recorded_as_they_served_and_move_every_so_many_steps():
    search = searched("kd", every=2)
    optimizer, served = OPTIMIZERS["plain"](search.method.parameters()), []
    for step in range(5):
        served.append(search.process.raw.clone())
        take_step(search.method, optimizer, clock(step), search)
    assert torch.equal(torch.stack(search.rows), torch.stack(served))
    moved = [not torch.equal(a, b) for a, b in zip(served, [*served[1:], search.process.raw], strict=True)]
    assert moved == [True, False, True, False, True]
    recorded = search.recorded({"seed": 3})
    assert (recorded.names, recorded.fixed) == (("kl",), ("ce",))
    assert (recorded.normaliser, recorded.scale) == ("biased-softmax", 1)
    torch.testing.assert_close(recorded.weights, recorded.raw.exp() / (recorded.raw.exp() + torch.e))
    assert recorded.found == {"seed": 3}


def test_a_loaded_search_goes_on_identically():
    whole, half, rest = (searched("distpro", order="paper") for _ in range(3))
    runs = [(s, OPTIMIZERS["adamw"](s.method.parameters())) for s in (whole, half, rest)]
    for search, _ in runs[1:]:
        search.method.load_state_dict(whole.method.state_dict())
        search.method.frozen["teacher"].load_state_dict(whole.method.frozen["teacher"].state_dict())
    for step in range(4):
        take_step(whole.method, runs[0][1], clock(step), whole)
    for step in range(2):
        take_step(half.method, runs[1][1], clock(step), half)
    file = io.BytesIO()
    torch.save([half.state_dict(), half.method.state_dict(), runs[1][1].state_dict()], file)
    file.seek(0)
    state, weights, memory = torch.load(file, weights_only=True)
    rest.load_state_dict(state)
    rest.method.load_state_dict(weights)
    runs[2][1].load_state_dict(memory)
    for step in range(2, 4):
        take_step(rest.method, runs[2][1], clock(step), rest)
    assert torch.equal(torch.stack(rest.rows), torch.stack(whole.rows))
    assert torch.equal(rest.process.raw, whole.process.raw)
    same(trace(whole, runs[0][1]), trace(rest, runs[2][1]))


def test_a_method_of_several_turns_is_refused():
    peers = with_peer()
    turns = [Turn(frozenset({"ce", "kl"})), Turn(frozenset({"peer/kl"}))]
    method = Method(dict(peers.members.items()), dict(peers.terms.items()), peers.process, turns=turns,
                    frozen={"teacher": network(Plain(12))})
    with pytest.raises(Mistake, match=r"one optimiser step; this method takes 2 turns .* one turn\."):
        searched(method)


def test_a_method_without_searchable_terms_is_refused():
    method = none(network(Plain()), setting())
    for process in (method.process, Learned(method.process, method.searchable())):
        with pytest.raises(Mistake, match=r"needs a method with searchable terms .* this one has none"):
            Search(method.under(process), Classification(), batch)


@pytest.mark.parametrize(("optimizer", "message"), [
    (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), r"without dampening.*'dampening': 0\.5"),
    (lambda p: torch.optim.Adam(p, amsgrad=True), "Adam without dampening, amsgrad.*'amsgrad': True"),
    (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "'maximize': True"),
    (lambda p: torch.optim.RMSprop(p), "SGD, Adam or AdamW; the student's optimiser is RMSprop"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1), "got Adam with L2 weight decay 0.1. Use AdamW"),
])
def test_optimisers_whose_step_is_not_differentiated_are_refused_before_a_step(optimizer, message):
    search = searched("kd")
    built = optimizer(search.method.parameters())
    before = trace(search, built)
    with pytest.raises(Mistake, match=message):
        take_step(search.method, built, clock(), search)
    same(before, trace(search, built))


def test_the_lagged_order_refuses_adam():
    search = searched("kd", order="lagged")
    with pytest.raises(Mistake, match="order 'lagged' needs SGD"):
        take_step(search.method, OPTIMIZERS["adamw"](search.method.parameters()), clock(), search)


def test_unlabelled_held_out_images_are_refused():
    search = searched("kd")
    search.held_out = lambda step: replace(batch(step), targets=None)
    with pytest.raises(Mistake, match="needs labelled held-out images"):
        take_step(search.method, OPTIMIZERS["plain"](search.method.parameters()), clock(), search)
