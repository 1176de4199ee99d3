"""Any method's weights can be searched, by slopes that are exact."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from limbeck.config import OptimizerSettings
from limbeck.contract.steps import CLOCK, Broken, images_for, noise, step
from limbeck.contract.trial import TASKS, Trial, built
from limbeck.contract.values import members_reached
from limbeck.method import Method, Step
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.search.slopes import Passes, exact, forward
from limbeck.seen import Batch
from limbeck.training.optimizers import build_optimizer


def can_search(trial: Trial) -> bool:
    """Whether its method has a searchable term, a loss to search it by, one turn in a step, no companion of its own."""
    method = built(trial)
    alone = len(method.turns) == 1 and method.companion is None
    return bool(method.searchable()) and method.supervised is not None and alone


def slopes_are_exact(trial: Trial) -> None:
    """The search's slopes, reverse through the terms, equal those of forward mode through everything."""
    method = copy.deepcopy(built(trial)).double()
    method.__dict__["frozen"] = {name: teacher.double() for name, teacher in method.frozen.items()}
    process = Learned(method.process, method.searchable())
    process.raw = process.raw.double()
    method = method.under(process)
    images = images_for(method)
    images = replace(images, images=images.images.double(), views=tuple(view.double() for view in images.views))
    pulling = _pulling(method, images)
    buffers = {name: b.clone() for name, b in method.named_buffers()}
    taken = Step(method, images, CLOCK, torch.optim.SGD(method.parameters(), lr=0.1))
    total, taken.losses, taken.seen = step(method, images, aliased=True)
    taken.weights = process.weights(CLOCK).double()
    total.backward()
    start = {n: p.detach().clone() for n, p in method.named_parameters()}
    method.load_state_dict(buffers, strict=False)  # a module lent in eval mode shows whether a step has gone by
    direction = {n: noise(p) for n, p in start.items() if n.startswith(f"members.{method.deploy}.")}
    computed = [name for name in process.searched if name in taken.losses]
    passes = Passes(method)
    try:
        reverse, ahead = (slopes(passes, taken, start, direction, computed) for slopes in (exact, forward))
    except NotImplementedError as error:
        raise Broken(f"torch has no forward mode for an operation: {str(error).splitlines()[0]}",
                     "Use other operations, or give an autograd function of one's own a jvp.") from error
    for name in computed:
        there = name in reverse, name in ahead
        if there != (name in pulling,) * 2 or (all(there) and not _close(reverse[name], ahead[name])):
            raise Broken(f"the slope of {name} is {_told(reverse, name)} backward, {_told(ahead, name)} forward",
                         "Use operations that torch can differentiate both ways, without custom autograd functions.")


def _pulling(method: Method, images: Batch) -> frozenset[str]:
    """Terms that send a gradient to the member that ships."""
    _, losses, _ = step(method, images)
    return frozenset(name for name, loss in losses.items() if method.deploy in members_reached(method, loss))


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def _told(slopes: Mapping[str, Tensor], name: str) -> str:
    return f"{slopes[name].item():.6g}" if name in slopes else "absent"


def search_moves_the_weights(trial: Trial) -> None:
    """A search beside a step changes every raw weight, and is silent on terms alone that do not pull what ships."""
    method = built(trial)
    method = method.under(Learned(method.process, method.searchable()))
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.01), {})
    assert isinstance(optimizer, torch.optim.Optimizer)
    search = Search(method, TASKS[trial.task], lambda place: images_for(method, seed=7))
    process, images = search.process, images_for(method)
    before, pulling, taken = process.raw.clone(), _pulling(method, images), Step(method, images, CLOCK, optimizer)
    search.before(taken)
    total, taken.losses, taken.seen = step(method, images, aliased=True)
    taken.weights = process.weights(CLOCK)
    total.backward()
    optimizer.step()
    search.after(taken)
    still = [name for name, old, new in zip(process.searched, before, process.raw, strict=True) if old == new]
    silent = {name for name in process.searched if name in taken.losses and name not in pulling}
    if still or set(search.silent or ()) != silent:
        raise Broken(f"a search leaves {still} as they were and finds no slope for {list(search.silent or ())}; only "
                     f"{sorted(silent)} do not pull the network that ships", "See what the term reads.")
