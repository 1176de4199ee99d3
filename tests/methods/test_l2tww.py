"""L2T-ww: the matching loss as published, and a meta-gradient that is that of differentiating through the chain."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from methods_tiny import setting, trainer
from torch import Tensor
from torch.func import functional_call

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.method import Method, Stage, Step
from limbeck.methods.kd import kd
from limbeck.methods.l2tww import Importance, l2tww, weighed_match
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.search.meta import Unrolled
from limbeck.seen import Clock
from limbeck.tasks.classification import Classification
from limbeck.training.optimizers import Optimizers
from limbeck.wiring.blending import blend


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """float64 throughout, and the same weights whatever ran before."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def build(*, width: int = 4, kind: str = "cnn", dropout: float = 0.0, **options) -> Method:
    student = tiny(2 * width if kind == "vit" else width, kind=kind, dropout=dropout)
    return l2tww(student, tiny(6, seed=1), setting(), **options).train()


def shaken(method: Method) -> Method:
    """With meta-networks that are no longer uniform, and no pair silenced."""
    with torch.no_grad():
        for parameter in method.companion.nets.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def optimizer_of(method: Method, **options) -> torch.optim.SGD:
    return torch.optim.SGD(method.parameters(), **{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, **options})


def real_step(method: Method, optimizer: torch.optim.Optimizer | Optimizers, now: Clock) -> Step:
    """A step as the loop takes it, up to where the companion looks ahead."""
    images = batch(6, seed=now.step)
    images = type(images)(images.images.double(), images.targets, images.index)
    step = Step(method, images, now, optimizer)
    method.companion.before(step)
    step.seen = method.see(images, now)
    step.losses = method(step.seen, method.process.active(now))
    step.weights = method.process.weights(now)
    optimizer.zero_grad()
    sum(step.weights[method.process.names.index(name)] * loss for name, loss in step.losses.items()).backward()
    optimizer.step()
    return step


def warm(method: Method, optimizer: torch.optim.Optimizer, *, steps: int = 3) -> Step:
    """The last of some real steps, after which the optimiser remembers something."""
    for number in range(steps):
        step = real_step(method, optimizer, Clock(number, 20, 10))
    return step


def through_the_chain(step: Step, *, matching: int, weight: float = 0.5) -> dict[str, Tensor]:
    """Slopes of the meta-networks by one backward through matching steps, a step on the labels and the labels' loss.

    Written for itself: networks called as plain modules, the losses of the paper, SGD's rule with the step's memory.
    """
    method, group = step.method, step.optimizer.param_groups[0]
    student, teacher = method.members["student"].module, method.frozen["teacher"].network
    nets = {name: p.detach().clone().requires_grad_() for name, p in method.companion.nets.named_parameters()}
    values = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
    speeds = {name: step.optimizer.state[p].get("momentum_buffer", torch.zeros_like(p))
              for name, p in method.named_parameters()}
    images, targets = step.batch.images, step.batch.targets
    with torch.no_grad():
        teacher.tap(teacher.stages)
        sources = teacher.read(images)
    pairs = [name for name in method.terms if name != "ce"]

    def run(values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        state = {name.removeprefix("members.student.module."): x for name, x in values.items() if "student" in name}
        state |= {name: buffer.clone() for name, buffer in student.named_buffers()}
        kept, hooks = {}, []
        for tap in method.members["student"].stages:
            module = student.get_submodule(student.taps[tap])
            hooks.append(module.register_forward_hook(lambda _, __, output, tap=tap: kept.__setitem__(tap, output)))
        logits = functional_call(student, state, (method.members["student"].normalise(images),))
        for hook in hooks:
            hook.remove()
        return F.cross_entropy(logits, targets), kept

    def match(values: dict[str, Tensor], kept: dict[str, Tensor]) -> Tensor:
        losses = []
        for name in pairs:
            source, own = (side for side in name.split(">"))
            t = sources[source]
            pooled = t.mean((2, 3))
            a = F.relu6(pooled @ nets[f"{name}.pair.weight"].T + nets[f"{name}.pair.bias"])[:, 0]
            w = (pooled @ nets[f"{name}.channels.weight"].T + nets[f"{name}.channels.bias"]).softmax(1)
            r = F.conv2d(kept[own], values[f"terms.{name}.connect.weight"], values[f"terms.{name}.connect.bias"])
            t = F.interpolate(t, r.shape[2:], mode="bilinear")
            losses.append((a * (w * (t - r).pow(2).mean((2, 3))).sum(1)).mean())
        return weight * torch.stack(losses).sum()

    for number in range(matching + 1):
        labels, kept = run(values)
        loss = match(values, kept) if number < matching else labels
        gradients = torch.autograd.grad(loss, list(values.values()), create_graph=True, materialize_grads=True)
        gradients = {name: g + group["weight_decay"] * values[name] for name, g in zip(values, gradients, strict=True)}
        speeds = {name: group["momentum"] * speeds[name] + g for name, g in gradients.items()}
        ahead = {name: gradients[name] + group["momentum"] * speed if group["nesterov"] else speed
                 for name, speed in speeds.items()}
        values = {name: x - group["lr"] * ahead[name] for name, x in values.items()}
    return dict(zip(nets, torch.autograd.grad(run(values)[0], list(nets.values())), strict=True))


@pytest.mark.parametrize("options", [
    {}, {"nesterov": True}, {"momentum": 0.0}, {"weight_decay": 0.0, "lr": 0.02}], ids=str)
@pytest.mark.parametrize("matching", [1, 2])
def test_meta_gradient_is_that_of_differentiating_through_the_chain(matching, options):
    method = shaken(build(steps=matching))
    step = warm(method, optimizer_of(method, **options))
    expected = through_the_chain(step, matching=matching)
    found = dict(zip(expected, method.companion.slopes(step), strict=True))
    assert len(expected) == 9 * 4
    largest = max(slope.abs().max() for slope in expected.values())
    assert largest > 1e-4
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-9, atol=1e-12 * largest.item())
    assert sum(bool(slope.abs().max() > 0) for slope in expected.values()) > 30


def test_meta_gradient_draws_the_same_dropout_when_it_goes_back():
    method = shaken(build(dropout=0.5))
    step = warm(method, optimizer_of(method))
    state = torch.get_rng_state()
    expected = through_the_chain(step, matching=2)
    torch.set_rng_state(state)
    found = dict(zip(expected, method.companion.slopes(step), strict=True))
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-8, atol=1e-12)
    torch.set_rng_state(torch.Generator().manual_seed(5).get_state())
    other = dict(zip(expected, method.companion.slopes(step), strict=True))
    assert any(not torch.allclose(other[name], slope) for name, slope in expected.items())


def trace(step: Step) -> dict[str, Tensor]:
    """Everything that looking ahead must leave alone."""
    method = step.method
    state = {name: x.clone() for name, x in (*method.named_parameters(), *method.named_buffers())}
    state |= {f"gradient.{name}": p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    state |= {f"mode.{name}": torch.tensor(module.training) for name, module in method.named_modules()}
    state |= {f"memory.{name}": step.optimizer.state[p]["momentum_buffer"].clone()
              for name, p in method.named_parameters()}
    return {**state, "random": torch.get_rng_state()}


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_looking_ahead_leaves_everything_else_as_it_was_to_the_bit(kind):
    method = build(kind=kind, dropout=0.3)
    step = warm(method, optimizer_of(method))
    before, nets = trace(step), copy.deepcopy(method.companion.nets.state_dict())
    method.companion.after(step)
    after = trace(step)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    moved = [name for name, x in method.companion.nets.state_dict().items() if not torch.equal(x, nets[name])]
    assert len(moved) == len(nets)
    assert all(p.grad is None and not p.requires_grad for p in method.companion.nets.parameters())


def test_meta_networks_belong_to_no_one_who_learns():
    method = build()
    nets = {id(p) for p in method.companion.nets.parameters()}
    assert len(nets) == 9 * 4
    assert not nets & {id(p) for p in method.parameters()}
    real_step(method, optimizer_of(method), Clock(0, 20, 10))
    assert all(p.grad is None for p in method.companion.nets.parameters())


def test_every_so_many_steps():
    method = build(every=3)
    optimizer, moved = optimizer_of(method), []
    for number in range(6):
        before = copy.deepcopy(method.companion.nets.state_dict())
        method.companion.after(real_step(method, optimizer, Clock(number, 20, 10)))
        after = method.companion.nets.state_dict()
        moved.append(any(not torch.equal(after[name], x) for name, x in before.items()))
    assert moved == [True, False, False, True, False, False]


def test_matching_is_the_papers():
    chance = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 3, 8, 8, generator=chance), torch.randn(2, 3, 4, 4, generator=chance)
    a, w = torch.tensor([0.5, 2.0]), torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]])
    t8 = F.interpolate(t, (8, 8), mode="bilinear")
    expected = sum(a[n] * w[n, c] * ((t8 - s)[n, c] ** 2).sum() / 64 for n in range(2) for c in range(3)) / 2
    torch.testing.assert_close(weighed_match(s, t, a, w), expected, rtol=1e-12, atol=0)


def test_meta_networks_start_uniform_over_channels():
    net, pooled = Importance(5), torch.randn(4, 5)
    pair, channels = net(pooled)
    torch.testing.assert_close(channels, torch.full((4, 5), 0.2))
    expected = (pooled @ net.pair.weight.T + 1)[:, 0].clamp(0, 6)
    torch.testing.assert_close(pair, expected)
    assert [p.numel() for p in net.parameters()] == [5, 1, 25, 5]


def test_all_stages_meet_all_stages_and_taps_can_be_chosen():
    method = build()
    assert list(method.terms)[1:] == [f"stage{i}>stage{j}" for i in (1, 2, 3) for j in (1, 2, 3)]
    assert method.terms["stage3>stage1"].connect.weight.shape == (12, 4, 1, 1)
    assert method.process.weights(Clock(0, 20, 10)).tolist() == [1.0] + [0.5] * 9
    chosen = build(teacher_taps=["stage2.pre"], student_taps=["stem", "pooled"], weight=0.2)
    assert list(chosen.terms) == ["ce", "stage2-pre>stem", "stage2-pre>pooled"]


@pytest.mark.parametrize("several", [False, True], ids=["adam", "sgd and adam"])
def test_other_optimisers_are_refused(several):
    method = build()
    parameters = list(method.parameters())
    optimizer = Optimizers([torch.optim.SGD(parameters[:2], 0.1), torch.optim.Adam(parameters[2:])]) if several else (
        torch.optim.Adam(parameters))
    with pytest.raises(Mistake, match=r"virtual steps are SGD's.*got Adam. Set optimizer.name=sgd"):
        real_step(method, optimizer, Clock(0, 20, 10))


def test_members_with_sgd_of_their_own_are_followed():
    method, twin = shaken(build()), shaken(build())
    twin.load_state_dict(method.state_dict())
    twin.companion.nets.load_state_dict(method.companion.nets.state_dict())
    parameters = list(method.parameters())
    one = warm(twin, optimizer_of(twin))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    parts = [torch.optim.SGD(half, **settings) for half in (parameters[:5], parameters[5:])]
    several = warm(method, Optimizers(parts))
    for x, y in zip(method.companion.slopes(several), twin.companion.slopes(one), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=0)


def test_a_search_and_a_blend_are_refused():
    method = build()
    with pytest.raises(Mistake, match=r"learns it already by a companion of its own \(Unrolled\)"):
        Search(method.under(Learned(method.process, method.searchable())), Classification(), batch)
    with pytest.raises(Mistake, match=r"l2tww does not blend: .* learns beside the loop"):
        blend({"kd": kd(method.members["student"], method.frozen["teacher"].network, setting()), "l2tww": method})


def test_the_loop_takes_one_companion(tmp_path: Path):
    torch.set_default_dtype(torch.float32)
    method = build()
    run = trainer([Stage(method, name="whole")], tmp_path / "own")
    run._prepare(0, {}, {})
    assert run.companion is method.companion
    other = Unrolled(torch.nn.Linear(2, 2), [frozenset({"ce"})])
    with pytest.raises(Mistake, match="one companion; stage 'whole' brings one of its own, and Unrolled was given too"):
        trainer([Stage(method, name="whole")], tmp_path / "given", companion=other)
