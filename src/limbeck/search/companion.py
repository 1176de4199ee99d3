"""Learns the weights of any method's terms: after each step, along the slope of the held-out loss.

Weights enter the loss linearly, so after the step theta' = S(theta, sum_i w_i g_i) the slope of the held-out loss L is
    dL/dw_i = <g_i, d>,    d = R * v,    v = dL/dtheta at theta',    R = d theta' / d gradient (see `response`).
g_i is the gradient of term i at theta on the training batch: no second derivatives are needed. `slopes` has four ways
to get <g_i, d>. The chain rule through the normaliser turns them into slopes of the raw weights.

Order `real`: the real step is the one looked through, and the new weights serve from the next step on. Order `paper`: a
tentative step first, undone to the bit, then the real one with the new weights. Order `lagged`: v is taken at theta.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.method import Method, Step
from limbeck.optimizer_parts import parts
from limbeck.process import Learned
from limbeck.process.recorded import Recorded
from limbeck.ranks import mean_over_ranks
from limbeck.search.response import check_exact, response
from limbeck.search.slopes import ESTIMATORS, Estimator, Passes
from limbeck.seen import Batch, random_state, set_random_state
from limbeck.tasks import Task
from limbeck.terms import full

Order = Literal["real", "paper", "lagged"]
_log = logging.getLogger(__name__)


class Search:
    """DistPro's bi-level search, beside the one loop, for any method with one turn.

    Args:
        method: Its process is `Learned`.
        task: Whose loss on the held-out data is to fall.
        held_out: Step -> held-out batch on the device.
        estimator: How <g_i, d> is computed, a key of `slopes.ESTIMATORS`.
        order: When the weights are updated.
        every: Update them at every so many steps.
        optimizer: Of the raw weights: `adam` or `sgd`.
        lr: Its learning rate; the paper's 0.05.
        betas: Adam's; (0.5, 0.999) in the released code.
        mode: Batch norm of the held-out pass: `train` (batch statistics, as released) or `eval`.
        autocast: Context for passes that may run in low precision.

    Raises:
        Mistake: If the method has several turns, or no searchable term.

    Source: DistPro, ECCV 2022, arXiv:2204.05547, sections 3.2-3.3. The released code leaves the tentative step in place
    and adds the training gradient to v; here neither happens.
    """

    def __init__(self, method: Method, task: Task, held_out: Callable[[int], Batch], *, estimator: Estimator = "exact",
                 order: Order = "real", every: int = 1, optimizer: Literal["adam", "sgd"] = "adam", lr: float = 0.05,
                 betas: tuple[float, float] = (0.5, 0.999), mode: Literal["train", "eval"] = "train",
                 autocast: Callable[[], AbstractContextManager] = nullcontext):
        if not isinstance(method.process, Learned) or not method.process.searched:
            raise Mistake("a search needs a method with searchable terms under a Learned process; this one has none. "
                          "Choose a method that has terms beside its supervised loss.")
        if len(method.turns) > 1:
            raise Mistake(f"a search looks through one optimiser step; this method takes {len(method.turns)} turns in "
                          f"a step, for which its slopes would not be exact. Use a method, or a form of it, with one "
                          f"turn.")
        if method.companion is not None:
            raise Mistake(f"a search learns how hard terms pull; this method learns it already by a companion of its "
                          f"own ({type(method.companion).__name__}), beside the same steps. Distil with it as it is.")
        self.method, self.process, self.task, self.held_out = method, method.process, task, held_out
        self.estimator, self.order, self.every, self.mode, self.autocast = estimator, order, every, mode, autocast
        raw = [self.process.raw]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(raw, lr=lr, betas=betas) if optimizer == "adam" else torch.optim.SGD(raw, lr=lr))
        self.rows: list[Tensor] = []
        self.silent: tuple[str, ...] | None = None
        self._passes = Passes(method, autocast)
        self._looked_through = [p for name in method.asked([f"{method.deploy}.logits"]) if name in method.members
                                for p in method.members[name].parameters()]
        self._start: dict[str, Tensor] = {}

    # --- the loop's calls

    def to(self, device: torch.device) -> None:
        self.process.to(device)
        self.optimizer.param_groups[0]["params"] = [self.process.raw]

    def wants_aliases(self, step: int) -> bool:
        return self.order == "real" and self._due(step)

    def before(self, step: Step) -> None:
        for part in parts(step.optimizer):
            check_exact(part, self._looked_through)
        if not self._due(step.clock.step):
            return
        if self.order == "real":
            lean = self.estimator == "exact" and not self.process.can_vanish  # then no term runs again
            moved = self._carriers() if lean else dict(self.method.named_parameters())
            self._start = {name: p.detach().clone() for name, p in moved.items()}
        else:
            self._update_first(step)

    def after(self, step: Step) -> None:
        self.rows.append(self.process.raw.clone())
        if self.order == "real" and self._due(step.clock.step):
            self._update(step, self._start, self._direction(step, self._held_out_gradient(step)))

    def _due(self, step: int) -> bool:
        return step % self.every == 0

    # --- orders

    def _update_first(self, step: Step) -> None:
        """The paper's order: look through a tentative step, put everything back, update the weights."""
        parameters = dict(self.method.named_parameters())
        start = {name: p.detach().clone() for name, p in parameters.items()}
        memory = {part: {p: {k: _copied(v) for k, v in own.items()} for p, own in part.state.items()}
                  for part in parts(step.optimizer)}
        self._gradients(step, parameters)
        if self.order == "paper":
            step.optimizer.step()
            direction = self._direction(step, self._held_out_gradient(step))
        else:
            direction = self._lagged_direction(step)
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(start[name])
                p.grad = None
        for part, states in memory.items():
            part.state.clear()
            part.state.update(states)
        self._update(step, start, direction)
        step.seen, step.losses, step.weights = None, {}, None

    def _gradients(self, step: Step, parameters: Mapping[str, nn.Parameter]) -> None:
        """Forward and backward at theta with the present weights, running statistics untouched."""
        step.seen = self.method.see(step.batch, step.clock, aliased=True)
        active = self.method.process.active(step.clock)
        with self.autocast():
            step.losses = self._passes.losses(step.seen, {}, active)
        step.weights = self.process.weights(step.clock).to(step.batch.images.device)
        names = self.method.process.names
        total = torch.stack([step.weights[names.index(n)] * loss for n, loss in step.losses.items()]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        # each in its parameter's own strides, as fused optimisers ask
        for parameter, gradient in zip(parameters.values(), mean_over_ranks(gradients), strict=True):
            parameter.grad = None if gradient is None else torch.empty_like(parameter).copy_(gradient)

    def _lagged_direction(self, step: Step) -> dict[str, Tensor]:
        """R * v with v at theta; R is a number for SGD, and for Adam it needs the step that is not taken."""
        if not all(isinstance(part, torch.optim.SGD) for part in parts(step.optimizer)):
            raise Mistake("order 'lagged' needs SGD as the student's optimiser; use order 'real' or 'paper' with Adam.")
        return self._direction(step, self._held_out_gradient(step))

    # --- the held-out gradient and the direction

    def _carriers(self) -> dict[str, nn.Parameter]:
        """Parameters that the held-out loss can depend on: those of members; terms' own never reach it."""
        return {name: parameter for member, module in self.method.members.items()
                for name, parameter in module.named_parameters(f"members.{member}") if parameter.requires_grad}

    def _held_out_gradient(self, step: Step) -> dict[str, Tensor]:
        carriers = self._carriers()
        batch = self.held_out(step.clock.step)
        address = f"{self.method.deploy}.logits"
        if batch.targets is None:
            raise Mistake("a search needs labelled held-out images; these have none. Give labelled data.")
        with self._aside():
            with self.autocast():
                logits = self.method.see(batch, step.clock)[address]
            loss = self.task.loss(full(logits), batch.targets)
            gradients = torch.autograd.grad(loss, list(carriers.values()), allow_unused=True)
        return {name: g for name, g in zip(carriers, mean_over_ranks(gradients), strict=True) if g is not None}

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Members in the held-out mode; afterwards they are in their own, and their buffers as they were.

        The pass within is theirs as in a step, compiled where they are. Buffers are put back behind its backward pass,
        which may look at them.
        """
        members = list(self.method.members.values())
        modes = [(part, part.training) for member in members for part in member.modules()]
        buffers = [(b, b.clone()) for member in members for b in member.buffers()]
        for member in members:
            member.train(self.mode == "train")
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)

    def _direction(self, step: Step, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        carriers = self._carriers()
        factors = response(step.optimizer, {name: carriers[name] for name in gradient})
        return {name: (factors[name] * gradient[name]).to(gradient[name].dtype) for name in factors}

    # --- the weights

    def _update(self, step: Step, start: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> None:
        """Move the raw weights along d(held-out loss) / d(weight); terms that were not computed have slope 0."""
        computed = [name for name in self.process.searched if name in step.losses]
        device = step.batch.images.device
        random = random_state(device)
        slopes = ESTIMATORS[self.estimator](self._passes, step, start, direction, computed)
        set_random_state(random, device)  # replays wind it back; the next step would repeat this one's dropout
        self._tell_silent(name for name in computed if name not in slopes)
        zero = torch.zeros((), device=device)
        own = torch.stack([full(slopes.get(name, zero)).to(device) for name in self.process.searched])
        (slope,) = mean_over_ranks([own])
        assert slope is not None
        self.process.raw.grad = self.process.raw_slope(slope, step.clock).to(self.process.raw.dtype)
        self.optimizer.step()

    def _tell_silent(self, names: Iterable[str]) -> None:
        if self.silent is None:
            self.silent = tuple(names)
            if self.silent:
                _log.warning("these terms do not pull '%s' within one step, so their slope is zero: %s",
                             self.method.deploy, ", ".join(self.silent))

    def recorded(self, found: Mapping[str, Any]) -> Recorded:
        """The process so far, ready to be saved."""
        raw = torch.stack(self.rows).cpu()
        fixed = tuple(n for n in self.process.names if n not in self.process.searched)
        return Recorded(self.process.searched, raw, self.process.normalise(raw), self.process.normaliser,
                        self.process.scale, fixed, found)

    def state_dict(self) -> dict[str, Any]:
        rows = torch.stack(self.rows).cpu() if self.rows else torch.zeros(0, len(self.process.searched))
        return {"process": self.process.state_dict(), "optimizer": self.optimizer.state_dict(), "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.process.load_state_dict(state["process"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rows = list(state["rows"].to(self.process.raw.device))


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
