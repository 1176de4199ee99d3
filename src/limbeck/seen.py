"""What everyone computed in one step, read by address: `member.tap`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from limbeck.derivatives.tangents import Kept, Replayed
from limbeck.errors import Mistake, nearest

Outputs = dict[str, Tensor]
"""Tap -> tensor. A network's holds at least `logits`."""


@dataclass(frozen=True)
class Batch:
    """Images of one step and all that the data set says of them.

    Attributes:
        images: (N, C, H, W), values in [0, 1].
        targets: Class of each image (N,), int64; label maps or depths for dense tasks; None for unlabelled images.
        index: Position of each image in its data set, (N,), int64.
        views: Further augmentations of the same images, each like `images`.
        view_ids: Number of each image as it was changed, among all views of all images, (N,), int64, always on the CPU:
            index * (views of an image) + view; see `data.Repertoire`. None where views are not counted.
    """

    images: Tensor
    targets: Tensor | None
    index: Tensor
    views: tuple[Tensor, ...] = ()
    view_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def cut(self, rows: slice) -> Batch:
        """Some of its images, one after the other."""
        targets, ids = (None if x is None else x[rows] for x in (self.targets, self.view_ids))
        return Batch(self.images[rows], targets, self.index[rows], tuple(view[rows] for view in self.views), ids)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; copies from pinned memory do not wait."""

        def move(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        targets = None if self.targets is None else move(self.targets)
        return replace(self, images=move(self.images), targets=targets, index=move(self.index),
                       views=tuple(map(move, self.views)))


@dataclass(frozen=True)
class Clock:
    """Where training stands: the one thing that rates, weights and data order depend on, beside the seed.

    Attributes:
        step: Optimiser steps done so far, 0 before the first.
        steps: Optimiser steps of the whole stage.
        steps_per_epoch: Optimiser steps in one pass over what is trained on.
    """

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        """Whole epochs done so far."""
        return self.step // self.steps_per_epoch

    @property
    def epochs(self) -> float:
        """Length of the stage in epochs."""
        return self.steps / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last: step / (steps - 1)."""
        return min(1.0, self.step / max(1, self.steps - 1))

    def at_epoch_start(self) -> Clock:
        """The clock as it stood at the first step of the present epoch."""
        return replace(self, step=self.epoch * self.steps_per_epoch)

    def tick(self) -> Clock:
        """The clock one step later."""
        return replace(self, step=self.step + 1)


class Seen:
    """One step's batch and clock, and every member's outputs, each computed when it is first asked for.

    Args:
        batch: The step's images.
        clock: The step's place in training.
        members: How to compute each member's outputs from what has been seen.
        known: Outputs that are not to be computed again (a search pass reuses the teacher's).
        aliased: Give every term aliases of its own through `of`, so that gradients can be read term by term, and note
            the random state in which each member starts.
        random: Random states, as an aliased `Seen` noted them, in which members are to start: the same dropout again.
        replayed: What members' convolutions gave, as an aliased `Seen` kept it: the same pass again, now with tangents.

    Attributes:
        aliases: Term -> address -> its alias.
        gradients: Term -> address -> what arrived at the alias in backward passes; nothing where none came. It is the
            gradient itself, in the order in memory that it came in, where `retain_grad` would keep a copy row by row.
        kept: What the convolutions of each member that looks at the images gave, where this step has aliases.
    """

    def __init__(self, batch: Batch, clock: Clock, members: Mapping[str, Callable[[Seen], Outputs]], *,
                 known: Mapping[str, Outputs] | None = None, aliased: bool = False,
                 random: Mapping[str, Tensor] | None = None, replayed: Mapping[str, Kept] | None = None):
        self.batch = batch
        self.clock = clock
        self.aliases: dict[str, dict[str, Tensor]] = {}
        self.gradients: dict[str, dict[str, Tensor]] = {}
        self.kept: dict[str, Kept] = {}
        self._replayed = dict(replayed or {})
        self.random: dict[str, Tensor] = dict(random or {})
        self._members = members
        self._outputs: dict[str, Outputs] = dict(known or {})
        self._aliased = aliased

    def outputs(self, member: str) -> Outputs:
        """Everything that a member computed in this step.

        Raises:
            Mistake: If there is no such member.
        """
        if member not in self._outputs:
            if member not in self._members:
                raise Mistake(f"'{member}' is read, and there is no such member; {nearest(member, self._members)}")
            device = self.batch.images.device
            if member in self.random:
                set_random_state(self.random[member], device)
            elif self._aliased:
                self.random[member] = random_state(device)
            with self._around(member):
                self._outputs[member] = self._members[member](self)
        return self._outputs[member]

    def _around(self, member: str) -> AbstractContextManager[Any]:
        """What a member runs in: who learns from the images, and so asks for nobody's outputs, is kept or replayed."""
        if member in self._replayed:
            return Replayed(self._replayed[member].values)
        if self._aliased and _learns_from_images(self._members[member]):
            self.kept[member] = Kept()
            return self.kept[member]
        return nullcontext()

    def __getitem__(self, address: str) -> Tensor:
        """The live tensor at `member.tap`: gradients flow back into the member.

        Raises:
            Mistake: If there is no such member, or it computes nothing of this name.
        """
        member, _, tap = address.partition(".")
        outputs = self.outputs(member)
        if tap not in outputs:
            raise Mistake(f"'{address}' is read, and '{member}' computes no '{tap}'; {nearest(tap, outputs)}. "
                          f"A term or member taps a layer by naming it in its `reads`.")
        return outputs[tap]

    def detached(self, address: str) -> Tensor:
        """The tensor at `member.tap`, cut from the graph."""
        return self[address].detach()

    def of(self, term: str) -> Seen:
        """The same activations for one term; through aliases of its own where this step keeps them."""
        return _Aliases(self, term) if self._aliased else self

    def under(self, names: Mapping[str, str]) -> Seen:
        """The same activations for someone who calls members otherwise.

        Args:
            names: Its name -> the member's; others are called as they are.
        """
        return _Called(self, names)

    def computed(self, members: Iterable[str]) -> dict[str, Outputs]:
        """What these members have computed so far, cut from the graph; those not asked for are absent."""
        return {name: {tap: x.detach() for tap, x in self._outputs[name].items()}
                for name in members if name in self._outputs}


class _Aliases(Seen):
    """A `Seen` through one term's own aliases: the gradient that arrives at an alias is that term's alone."""

    def __init__(self, seen: Seen, term: str):
        super().__init__(seen.batch, seen.clock, seen._members)
        self._outputs = seen._outputs
        self._seen = seen
        self._own = seen.aliases.setdefault(term, {})
        self._arrived = seen.gradients.setdefault(term, {})

    def outputs(self, member: str) -> Outputs:
        return self._seen.outputs(member)

    def __getitem__(self, address: str) -> Tensor:
        if address not in self._own:
            live = super().__getitem__(address)
            if not live.requires_grad:
                return live
            self._own[address] = live.view_as(live)
            self._own[address].register_hook(partial(_keep, self._arrived, address))
        return self._own[address]

    def detached(self, address: str) -> Tensor:
        return self._seen[address].detach()

    def of(self, term: str) -> Seen:
        return self._seen.of(term)


class _Called(Seen):
    """A `Seen` in which some members go by other names."""

    def __init__(self, seen: Seen, names: Mapping[str, str]):
        super().__init__(seen.batch, seen.clock, seen._members)
        self._seen, self._names = seen, names

    def outputs(self, member: str) -> Outputs:
        return self._seen.outputs(self._names.get(member, member))

    def __getitem__(self, address: str) -> Tensor:
        return self._seen[called(address, self._names)]

    def detached(self, address: str) -> Tensor:
        return self._seen.detached(called(address, self._names))

    def of(self, term: str) -> Seen:
        return self._seen.of(term).under(self._names)


def called(address: str, names: Mapping[str, str]) -> str:
    """An address by the member's own name."""
    member, dot, tap = address.partition(".")
    return names.get(member, member) + dot + tap


def _learns_from_images(member: Any) -> bool:
    """Whether it is a network that is not finished; one that is compiled has no convolutions to be seen."""
    if getattr(member, "reads", None) != () or getattr(member, "finished", False):
        return False
    return all(part._compiled_call_impl is None for part in member.children())


def _keep(arrived: dict[str, Tensor], address: str, gradient: Tensor) -> None:
    gradient = gradient.detach()
    arrived[address] = arrived[address] + gradient if address in arrived else gradient


def random_state(device: torch.device) -> Tensor:
    """State of the generator that dropout on this device draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Put that generator into a state that `random_state` gave."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
