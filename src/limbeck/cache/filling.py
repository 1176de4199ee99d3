"""Filling a cache ahead of training, and what it is worth: the error of what is stored, and the time that it saves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import torch

from limbeck import ranks
from limbeck.cache.remembered import Remembered
from limbeck.cache.rows import error
from limbeck.data import Batches, Repertoire, Split
from limbeck.method import Method
from limbeck.seen import Batch, Clock, Seen

Context = Callable[[], AbstractContextManager]
_CLOCK = Clock(0, 1, 1)
_ROUNDS = 7


def fill(network: Remembered, repertoire: Repertoire, split: Split, *, batch_size: int, device: torch.device,
         workers: int, autocast: Context, tell: Callable[[int], None]) -> int:
    """Compute and store every view that is missing; this rank's share of them.

    Args:
        network: Whose outputs.
        repertoire: The views.
        split: The images.
        batch_size: Of this rank.
        device: Where it runs.
        workers: Processes that decode.
        autocast: Context that it runs in, as in training.
        tell: Is called after each batch with the views done so far, and may raise to stop.

    Returns:
        How many views this rank computed.
    """
    done, cache = 0, network.cache
    for view in range(repertoire.count):
        ids = split.index * repertoire.count + view
        missing = (cache.find(ids) < 0).nonzero()[:, 0][ranks.rank()::ranks.world()]
        if not len(missing):
            continue
        rows = split.index[missing]
        loaded = split.store.batches(rows, repertoire.draws(rows, view), batch_size, repertoire.augmentation, device,
                                     workers)
        for (images, index, _), own in zip(loaded, ids[missing].split(batch_size), strict=True):
            with autocast():
                network(Seen(Batch(images, None, index, view_ids=own), _CLOCK, {}))
            done += len(own)
            tell(done)
    return done


def missing(network: Remembered, repertoire: Repertoire, split: Split) -> int:
    """How many views are not stored."""
    count, cache = repertoire.count, network.cache
    return sum(int((cache.find(split.index * count + view) < 0).sum()) for view in range(count))


def errors(network: Remembered, batches: Iterable[Batch], autocast: Context,
           temperatures: Iterable[float]) -> dict[float, float]:
    """Mean KL, in nats, from the network's distribution to that which is read of it; temperature -> KL.

    Args:
        network: It is run on the batches, whose views are stored.
        batches: A sample.
        autocast: Context that it runs in.
        temperatures: Of the distributions.
    """
    full, read = [], []
    for batch in batches:
        with autocast():
            read.append(network(Seen(batch, _CLOCK, {}))["logits"].float())
            full.append(network.computed(Seen(batch, _CLOCK, {}))["logits"].float())
    return {t: error(torch.cat(full), torch.cat(read), t) for t in sorted(set(temperatures))}


@dataclass(frozen=True)
class Times:
    """Medians over a few steps, in seconds.

    Attributes:
        live: A step in which every frozen network runs.
        stored: A step in which those remembered are read.
    """

    live: float
    stored: float


def timed(method: Method, batches: Batches, autocast: Context) -> Times:
    """What a step takes, forward and backward, with the remembered networks run and with them read, in turn.

    Args:
        method: On its device, all views stored. Its running statistics move.
        batches: To train on.
        autocast: Context that members run in.
    """
    remembered = {name: one for name, one in method.frozen.items() if isinstance(one, Remembered)}
    taken: dict[bool, list[float]] = {True: [], False: []}
    for batch in islice(batches.epoch(0), _ROUNDS + 1):
        for live in (True, False):
            _wait(batches.device)
            began = time.perf_counter()
            with autocast():
                seen = method.see(batch, _CLOCK)
                known = {name: one.computed(seen) for name, one in remembered.items()} if live else {}
                losses = method(method.see(batch, _CLOCK, known=known), frozenset(method.terms))
            torch.stack(list(losses.values())).sum().backward()
            _wait(batches.device)
            taken[live].append(time.perf_counter() - began)
    method.zero_grad(set_to_none=True)
    return Times(*(statistics.median(taken[kind][1:] or taken[kind]) for kind in (True, False)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
