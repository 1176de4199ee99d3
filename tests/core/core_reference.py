"""A step under a search as the loop takes it, and the slopes that differentiating through such a step gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from core_tiny import Plain, batch, clock, network, setting
from torch import Tensor
from torch.func import functional_call

from limbeck.method import Method, Step
from limbeck.methods.distpro import distpro
from limbeck.methods.kd import kd
from limbeck.methods.reviewkd import reviewkd
from limbeck.optimizer_parts import parts
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.seen import Batch, Clock
from limbeck.tasks.classification import Classification

METHODS: dict[str, Callable[..., Method]] = {
    "distpro": lambda s, t: distpro(s, t, setting(), transforms=("c2",)),
    "reviewkd": lambda s, t: reviewkd(s, t, setting(), warm_up=0.25),
    "kd": lambda s, t: kd(s, t, setting()),
}
"""Pathways from the student alone; a member that reads the student live, under a ramp; logits."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "plain": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-2),
    "heavy ball": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2),
}

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "biased-softmax": lambda a: a.exp() / (a.exp().sum() + torch.e),
    "softmax": lambda a: a.exp() / a.exp().sum(),
    "biased-l1": lambda a: a.abs() / (a.abs().sum() + 1),
    "l1": lambda a: a.abs() / a.abs().sum(),
    "sigmoid": lambda a: 1 / (1 + (-a).exp()),
}
"""The normalisers as DistPro's Table 7 has them."""


def held_out(step: int) -> Batch:
    """Other images than those of training."""
    return batch(seed=1000 + step, images=6)


def searched(method: str | Method, *, normalise: str = "biased-softmax", activation: Callable = torch.nn.ReLU,
             dropout: float = 0.0, **options: object) -> Search:
    """A search over a method on a tiny pair, its raw weights all different, some negative, none 0."""
    if isinstance(method, str):
        method = METHODS[method](network(Plain(activation=activation, dropout=dropout)), network(Plain(12)))
    process = Learned(method.process, method.searchable(), normalise=normalise)
    process.raw.copy_(torch.linspace(-0.7, 1.5, len(process.raw)) if len(process.raw) > 1 else torch.tensor([0.8]))
    under = method.under(process)
    under.train()
    return Search(under, Classification(), held_out, **options)


def take_step(method: Method, optimizer: torch.optim.Optimizer, now: Clock, search: Search | None = None) -> Step:
    """One step as the loop takes it; its batch follows from the clock."""
    step = Step(method, batch(seed=now.step), now, optimizer)
    if search is not None:
        search.before(step)
    step.seen = method.see(step.batch, now, aliased=search is not None and search.wants_aliases(now.step))
    step.losses = method(step.seen, method.process.active(now))
    step.weights = method.process.weights(now)
    total = sum(step.weights[method.process.names.index(name)] * loss for name, loss in step.losses.items())
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    method.after_step(step.seen)
    if search is not None:
        search.after(step)
    return step


def warm(search: Search, kind: str, steps: int = 3) -> torch.optim.Optimizer:
    """An optimiser with memory: it has taken some steps without the search."""
    return used(search, OPTIMIZERS[kind](search.method.parameters()), steps)


def used(search: Search, optimizer: torch.optim.Optimizer, steps: int = 3) -> torch.optim.Optimizer:
    """The optimiser after some steps without the search."""
    for step in range(steps):
        take_step(search.method, optimizer, clock(step))
    return optimizer


def rule(optimizer: torch.optim.Optimizer, parameter: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """What SGD, Adam or AdamW, with the memory that it has of a parameter, makes of a value; differentiable."""
    part, group = next((part, group) for part in parts(optimizer) for group in part.param_groups
                       if any(parameter is p for p in group["params"]))
    memory = part.state.get(parameter, {})
    lr, decay = group["lr"], group["weight_decay"]
    if isinstance(part, torch.optim.Adam):  # AdamW is one
        decoupled = isinstance(part, torch.optim.AdamW)
        gradient = gradient if decoupled else gradient + decay * value
        (beta1, beta2), count = group["betas"], memory["step"].item() + 1
        mean = beta1 * memory["exp_avg"] + (1 - beta1) * gradient
        square = beta2 * memory["exp_avg_sq"] + (1 - beta2) * gradient**2
        root = (square / (1 - beta2**count)).sqrt()
        return value * (1 - lr * decay * decoupled) - lr * mean / (1 - beta1**count) / (root + group["eps"])
    gradient = gradient + decay * value
    if not group["momentum"]:
        return value - lr * gradient
    velocity = group["momentum"] * memory["momentum_buffer"] + gradient
    return value - lr * (gradient + group["momentum"] * velocity if group["nesterov"] else velocity)


def through_the_step(search: Search, optimizer: torch.optim.Optimizer, now: Clock) -> dict[str, Tensor]:
    """Differentiates the held-out loss through one optimiser step, from the present state, which it leaves alone.

    In the paper's order a held-out pass in eval mode has the running statistics from before the step.

    Returns:
        `weights`, `raw`: slopes of the searched terms' weights and of the raw weights; `after.NAME`: each parameter
        after the step.
    """
    method, process, parameters = search.method, search.process, dict(search.method.named_parameters())
    values = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    state = {**values, **{name: b.clone() for name, b in method.named_buffers()}}
    raw = process.raw.clone().requires_grad_()
    weights = dict(zip(process.names, process.base.weights(now), strict=True))
    free = process.scale * FORMULAS[process.normaliser](raw) * torch.stack([weights[n] for n in process.searched])
    weights |= dict(zip(process.searched, free, strict=True))
    statistics = {name: b.clone() for name, b in method.named_buffers()} if search.order == "paper" else {}
    losses = functional_call(method, state, (method.see(batch(seed=now.step), now), process.active(now)))
    total = sum(weights[name] * loss for name, loss in losses.items())
    gradients = torch.autograd.grad(total, list(values.values()), create_graph=True)
    after = {name: rule(optimizer, parameters[name], value, gradient)
             for (name, value), gradient in zip(values.items(), gradients, strict=True)}
    student, prefix = method.student(), f"members.{method.deploy}.module."
    inner = {name.removeprefix(prefix): x for name, x in {**state, **statistics, **after}.items()
             if name.startswith(prefix)}
    images, plain = held_out(now.step), student.deployed().train(search.mode == "train")
    logits = functional_call(plain, inner, (student.normalise(images.images),))
    of_weights, of_raw = torch.autograd.grad(F.cross_entropy(logits, images.targets), [free, raw])
    return {"weights": of_weights, "raw": of_raw, **{f"after.{name}": x.detach() for name, x in after.items()}}


def watch(search: Search) -> list[Tensor]:
    """The slopes of the searched terms' weights that a search finds from now on, update by update."""
    found: list[Tensor] = []
    chain_rule = search.process.raw_slope

    def note(slope: Tensor, now: Clock) -> Tensor:
        found.append(slope)
        return chain_rule(slope, now)

    search.process.raw_slope = note
    return found
