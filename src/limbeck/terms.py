"""Who pulls whom: a term is one named scalar, computed from what has been seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.members import Member
from limbeck.samples import samples
from limbeck.seen import Clock, Seen
from limbeck.tasks import Task
from limbeck.tasks.maps import at_size, same_places

Distance = Callable[..., Tensor]
"""(student, source[, targets]) -> scalar; a pure function from `limbeck.losses`, or anyone's."""


class Term(nn.Module):
    """One named pull: returns a scalar and changes nothing.

    Attributes:
        reads: Addresses that `forward` asks for; naming a layer here is what taps it.
        owner: The member whose optimiser steps the term's own parameters.
        searchable: Whether a search may weigh it; supervised losses are fixed.
        supervised: Whether it is the task's own loss, which unlabelled images leave out.
        labelled: Whether it reads the targets: without labels it cannot be computed.
        sure: Whether it needs one class for each image, and cannot do with class probabilities.
        indexed: Whether it remembers images by `Batch.index`: an image mixed of two is neither.
    """

    reads: tuple[str, ...] = ()
    owner: str = ""
    searchable: bool = True
    supervised: bool = False
    labelled: bool = False
    sure: bool = False
    indexed: bool = False

    def meet(self, members: Mapping[str, Member]) -> None:
        """Called once when the method is put together, before layers are tapped: what it reads may hang on whom."""

    def forward(self, seen: Seen) -> Tensor:
        """The term's value; whom it pulls follows from what it reads live."""
        raise TypeError(f"{type(self).__name__} must define forward(seen) -> Tensor")

    def after_step(self, seen: Seen, clock: Clock) -> None:
        """Called once after each optimiser step; memories live here."""


def full(x: Tensor) -> Tensor:
    """At least float32: distances are taken there, whatever precision the members run in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Supervise(Term):
    """The task's own loss of one member against the targets, and of its auxiliary outputs by their weights.

        loss = task.loss(logits) + sum_a weight_a * task.loss(output a)

    An auxiliary output is one that the member declares (`Member.auxiliary`), as the head on PSPNet's third stage.

    Args:
        member: Who is supervised.
        task: What says how; its `loss` takes (output, targets).
        tap: Which output; auxiliary ones belong to the logits.
    """

    searchable = False
    supervised = labelled = True

    def __init__(self, member: str, task: Task, *, tap: str = "logits"):
        super().__init__()
        self.address, self.auxiliary = f"{member}.{tap}", dict[str, float]()
        self.reads, self.owner, self.task = (self.address,), member, task

    def meet(self, members: Mapping[str, Member]) -> None:
        if self.address == f"{self.owner}.logits" and self.owner in members:
            self.auxiliary = {f"{self.owner}.{t}": weight for t, weight in members[self.owner].auxiliary.items()}
            self.reads = (self.address, *self.auxiliary)

    def forward(self, seen: Seen) -> Tensor:
        targets = seen.batch.targets
        if targets is None:
            raise Mistake(f"a supervised loss of '{self.owner}' needs labelled images; these have none. "
                          f"Give labelled data, or set the weight of the supervised term to 0.")
        with torch.autocast(seen.batch.images.device.type, enabled=False):
            loss = self.task.loss(full(seen[self.address]), targets)
            for address, weight in self.auxiliary.items():
                loss = loss + weight * self.task.loss(full(seen[address]), targets)
            return loss


class Match(Term):
    """distance(connect(student), connect_source(source)): most of the field.

    Args:
        student: Address that is pulled, or several: then the distance gets a tuple.
        source: Address that it is pulled towards, or several.
        distance: Pure function; it is called in float32 outside autocast.
        connect: Makes the student's representation comparable; trained with the student.
        connect_source: The same for the source; trained with the student too.
        labelled: The distance also takes the targets: one class for each image.
        detach: Whether the source feels nothing (default), or is pulled as well.
        task: Of both sides, where it is to say what counts; None leaves them as they are.
        by: Where a task is given: `samples`, the distance takes its answers, logits or the like, row by row, (P, C):
            images, or pixels that count (see `samples`; it is 0 where none does); `maps`, it takes maps, the student's
            brought bilinearly to the source's size, and `valid`, (N, h, w) or None: which places count.
        everywhere: Where a task is given, let every pixel count.
    """

    def __init__(self, student: str | tuple[str, ...], source: str | tuple[str, ...], distance: Distance, *,
                 connect: nn.Module | None = None, connect_source: nn.Module | None = None,
                 labelled: bool = False, detach: bool = True, task: Task | None = None,
                 by: Literal["samples", "maps"] = "samples", everywhere: bool = False):
        super().__init__()
        self.student = (student,) if isinstance(student, str) else student
        self.source = (source,) if isinstance(source, str) else source
        self.reads, self.owner = self.student + self.source, self.student[0].partition(".")[0]
        self.distance, self.labelled, self.sure, self.detach = distance, labelled, labelled, detach
        self.task, self.everywhere, self.by = task, everywhere, by
        self.connect, self.connect_source = connect, connect_source

    def forward(self, seen: Seen) -> Tensor:
        student, source = self.sides(seen)
        targets = seen.batch.targets
        with torch.autocast(seen.batch.images.device.type, enabled=False):
            if self.task is not None:
                return self._where_it_counts(self.task, student, source, targets)
            return self.distance(student, source, *([targets] if self.labelled else []))

    def _where_it_counts(self, task: Task, student: Tensor, source: Tensor, targets: Tensor | None) -> Tensor:
        if self.by == "maps":
            size, valid = source.shape[2:], None if targets is None or self.everywhere else task.valid(targets)
            valid = None if valid is None else same_places(valid, size)
            return self.distance(at_size(student, size), source, valid=valid)
        own, other, labels = samples(task, student, source, targets, everywhere=self.everywhere)
        if not len(own):
            return 0 * student.sum()
        return self.distance(own, other, *([labels] if self.labelled else []))

    def sides(self, seen: Seen) -> tuple[Any, Any]:
        """The student's and the source's side as they are compared: connected, float32 at least; tuples of several."""
        pulled = [seen[address] for address in self.student]
        sources = [seen.detached(a) if self.detach else seen[a] for a in self.source]
        student, source = self._connected(self.connect, pulled), self._connected(self.connect_source, sources)
        return _packed([full(x) for x in student]), _packed([full(x) for x in source])

    @staticmethod
    def _connected(connector: nn.Module | None, inputs: list[Tensor]) -> list[Tensor]:
        if connector is None:
            return inputs
        output = connector(*inputs)
        return list(output) if isinstance(output, tuple) else [output]


def _packed(tensors: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
