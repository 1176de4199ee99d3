"""Any method's weights can be searched, by slopes that are exact."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from limbeck.config import OptimizerSettings
from limbeck.contract.steps import CLOCK, Broken, images_for, noise, step
from limbeck.contract.trial import Trial, built
from limbeck.method import Step
from limbeck.optimizers import build_optimizer
from limbeck.process import Learned
from limbeck.search import Search
from limbeck.slopes import Passes, exact, forward
from limbeck.tasks.classification import Classification


def can_search(trial: Trial) -> bool:
    """Whether the trial's method has a searchable term, and takes one turn in a step."""
    method = built(trial)
    return bool(method.searchable()) and len(method.turns) == 1


def slopes_are_exact(trial: Trial) -> None:
    """The search's slopes, reverse through the terms, equal those of forward mode through everything."""
    method = copy.deepcopy(built(trial)).double()
    method.__dict__["frozen"] = {name: teacher.double() for name, teacher in method.frozen.items()}
    process = Learned(method.process, method.searchable())
    process.raw = process.raw.double()
    method = method.under(process)
    images = images_for(method)
    images = replace(images, images=images.images.double(), views=tuple(view.double() for view in images.views))
    taken = Step(method, images, CLOCK, torch.optim.SGD(method.parameters(), lr=0.1))
    total, taken.losses, taken.seen = step(method, images, aliased=True)
    taken.weights = process.weights(CLOCK).double()
    total.backward()
    start = {n: p.detach().clone() for n, p in method.named_parameters()}
    direction = {n: noise(p) for n, p in start.items() if n.startswith(f"members.{method.deploy}")}
    passes = Passes(method)
    reverse, ahead = (slopes(passes, taken, start, direction, process.searched) for slopes in (exact, forward))
    for name in process.searched:
        if name not in reverse or not torch.allclose(reverse[name], ahead[name], rtol=1e-9, atol=1e-12):
            raise Broken(f"the slope of {name} is {_told(reverse, name)} backward, {_told(ahead, name)} in forward mode",
                         "Use operations that torch can differentiate both ways, without custom autograd functions.")


def _told(slopes: Mapping[str, Tensor], name: str) -> str:
    return f"{slopes[name].item():.6g}" if name in slopes else "absent"


def search_moves_the_weights(trial: Trial) -> None:
    """A search beside a step changes the weight of every searchable term."""
    method = built(trial)
    method = method.under(Learned(method.process, method.searchable()))
    optimizer = build_optimizer(method, OptimizerSettings(lr=0.01), {})
    search = Search(method, Classification(), lambda place: images_for(method, seed=7))
    process = search.process
    before, taken = process.raw.clone(), Step(method, images_for(method), CLOCK, optimizer)
    search.before(taken)
    total, taken.losses, taken.seen = step(method, taken.batch, aliased=True)
    taken.weights = process.weights(CLOCK)
    total.backward()
    optimizer.step()
    search.after(taken)
    still = [name for name, old, new in zip(process.searched, before, process.raw, strict=True) if old == new]
    if still or search.silent:
        raise Broken(f"a search cannot weigh {', '.join(search.silent or still)}",
                     "A term must pull the network that ships within one step.")
