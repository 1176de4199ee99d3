"""A method is who takes part, who pulls whom, how hard, and who is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limbeck.config import ScheduleSettings
from limbeck.data import Batches
from limbeck.derivatives.tangents import Kept
from limbeck.errors import Mistake, nearest
from limbeck.members import Frozen, Look, Member, Network
from limbeck.optimizer_parts import Optimizers
from limbeck.process import Process, Without
from limbeck.seen import Batch, Clock, Outputs, Seen
from limbeck.tasks import Task
from limbeck.terms import Supervise, Term


@dataclass(frozen=True)
class Setting:
    """What a method may ask about the job: so connectors size themselves, and memories know the labels.

    Attributes:
        task: What supervises and measures.
        classes: Class names, in order.
        labels: Class of each training image by `Batch.index`, (N,), int64; None where unlabelled.
        rows: Values that `Batch.index` takes in training, (M,); fewer than N where some images are held out.
        sample: A few training images.
        seed: Seeds whatever the method draws itself.
        batch_size: Images of a rank in a step, at most.
        hold_out: Cuts a part of every class off the training images, before training begins, and gives it: plain, in
            order, each image once a pass. None where there is no data to cut.
    """

    task: Task
    classes: tuple[str, ...]
    labels: Tensor | None
    rows: Tensor
    sample: Batch
    seed: int = 0
    batch_size: int = 64
    hold_out: Callable[[float], Batches] | None = None


@dataclass(frozen=True)
class Turn:
    """One forward, backward and optimiser step of some terms. By default a method has one turn with all its terms.

    Attributes:
        terms: The terms that this turn computes.
        owners: Whose parameters it steps; None is everyone its terms pull.
        optimizer: Name of an optimiser of the turn's own, beside the owners' ordinary ones; `Stage.optimizers`, and the
            run's, say under that name what it is. None steps the ordinary ones.
    """

    terms: frozenset[str]
    owners: frozenset[str] | None = None
    optimizer: str | None = None


class Method(nn.Module):
    """Members, terms between them, their process, and who is kept: the only module that the engine wraps.

    Args:
        members: Those who learn, and what computes from their outputs.
        terms: The pulls. Every address that a term or member reads is tapped here, so a wrong name fails here.
        process: A weight for every term.
        frozen: Finished members that only teach; they stay outside what is trained, wrapped and saved.
        deploy: The member that ships.
        turns: In what order terms are stepped; None is all at once.
        views: Further augmentations of each image that members look at, by kind: `same` (as the images themselves,
            drawn anew), `strong` or `plain` (not augmented).
        companion: What learns beside the loop, if the method brings such: meta-networks. Like frozen networks it stays
            outside what is trained and wrapped, and it is saved by itself.

    Raises:
        Mistake: If names do not fit together.
    """

    def __init__(self, members: Mapping[str, Member], terms: Mapping[str, Term], process: Process, *,
                 frozen: Mapping[str, Member] | None = None, deploy: str = "student",
                 turns: Sequence[Turn] | None = None, views: Sequence[str] = (), companion: Companion | None = None):
        super().__init__()
        self.members = nn.ModuleDict(dict(members))  # type: ignore[assignment]
        self.terms = nn.ModuleDict(dict(terms))  # type: ignore[assignment]
        teachers = {name: n if isinstance(n, Frozen) else Frozen(n) for name, n in (frozen or {}).items()}
        self.__dict__["frozen"] = teachers  # no submodules, these two: never trained, wrapped, saved with the rest
        self.__dict__["companion"] = companion
        self.process, self.deploy, self.views = process, deploy, tuple(views)
        self.turns = tuple(turns or [Turn(frozenset(terms))])
        for term in self.terms.values():
            term.meet(self.members)
        self._check()
        for address in self.reads():
            self._tap(address)

    members: Mapping[str, Member]
    terms: Mapping[str, Term]
    frozen: dict[str, Frozen]
    companion: Companion | None

    def _check(self) -> None:
        if self.deploy not in self.members:
            raise Mistake(f"the method keeps '{self.deploy}', which is no member; {nearest(self.deploy, self.members)}")
        both = [name for name in self.frozen if name in self.members]
        if both:
            raise Mistake(f"every name stands for one network; {both} both learn and are frozen. Rename one of each.")
        unweighted, unknown = set(self.terms) - set(self.process.names), set(self.process.names) - set(self.terms)
        if unweighted or unknown:
            raise Mistake(f"every term needs one weight; terms without: {sorted(unweighted)}, weights without a term: "
                          f"{sorted(unknown)}. Give the process exactly the terms' names.")
        for name, term in self.terms.items():
            if term.owner not in self.members and any(True for _ in term.parameters()):
                raise Mistake(f"term '{name}' has parameters and is owned by '{term.owner}', which is no learning "
                              f"member; {nearest(str(term.owner), self.members)}")
        self._check_views()

    def _check_views(self) -> None:
        everyone: dict[str, Any] = {**dict(self.members.items()), **self.frozen}
        for name, member in everyone.items():
            if isinstance(member, Look) and all(member.network is not other for other in self.members.values()):
                raise Mistake(f"a Look is another look of a learning member; '{name}' is one of {member.network.name}, "
                              f"which is none here. For a teacher give frozen={{'{name}': Frozen(network, view=...)}}.")
            view = member.view if isinstance(member, Frozen | Look | Network) else None
            if view is not None and view >= len(self.views):
                raise Mistake(f"'{name}' looks at view {view} of each image, counted from 0; the method asks for "
                              f"{list(self.views)}. Name more of them in `views`.")

    def reads(self) -> list[str]:
        """Every address that a member or term asks for."""
        readers: list[Any] = [*self.members.values(), *self.frozen.values(), *self.terms.values()]
        return [address for reader in readers for address in reader.reads]

    def asked(self, addresses: Iterable[str]) -> list[str]:
        """Members and frozen networks that compute when these addresses are asked for."""
        everyone: dict[str, Any] = {**dict(self.members.items()), **self.frozen}
        found: dict[str, None] = {}
        waiting = list(addresses)
        while waiting:
            name = waiting.pop().partition(".")[0]
            if name not in found:
                found[name] = None
                waiting += everyone[name].reads
        return list(found)

    @property
    def supervised(self) -> str | None:
        """The term that is the supervised loss of the member that ships, if there is one."""
        return next((name for name, term in self.terms.items()
                     if isinstance(term, Supervise) and term.owner == self.deploy), None)

    def _tap(self, address: str) -> None:
        name, _, tap = address.partition(".")
        everyone: dict[str, Any] = {**dict(self.members.items()), **self.frozen}
        if name not in everyone:
            raise Mistake(f"'{address}' is read, and there is no member '{name}'; {nearest(name, everyone)}")
        member = everyone[name].network if isinstance(everyone[name], Frozen | Look) else everyone[name]
        if isinstance(member, Network):
            member.tap([tap])

    def see(self, batch: Batch, clock: Clock, *, aliased: bool = False, known: Mapping[str, Outputs] | None = None,
            random: Mapping[str, Tensor] | None = None, replayed: Mapping[str, Kept] | None = None) -> Seen:
        """A step's `Seen`, in which nothing is computed yet beyond what is known."""
        members: dict[str, Callable[[Seen], Outputs]] = {**dict(self.members.items()), **self.frozen}
        return Seen(batch, clock, members, aliased=aliased, known=known, random=random, replayed=replayed)

    def forward(self, seen: Seen, active: frozenset[str]) -> dict[str, Tensor]:
        """The active terms' values, by name; only what they read is computed.

        Members compute out here, in the precision that they are called in: a term that leaves autocast for its own
        arithmetic would take along those whom it is the first to ask.
        """
        losses = {}
        for name, term in self.terms.items():
            if name in active:
                for address in term.reads:
                    seen.outputs(address.partition(".")[0])
                losses[name] = term(seen.of(name))
        return losses

    def owners(self) -> dict[str, list[nn.Parameter]]:
        """Each member's parameters and those of the terms it owns, each parameter exactly once; empty ones left out.

        Parameters that take no gradient, as those of a moving average, are nobody's.
        """
        owned = {name: _learned(member) for name, member in self.members.items()}
        for term in self.terms.values():
            if term.owner in owned:
                owned[term.owner] += _learned(term)
        counts: dict[int, int] = {}
        for parameter in (p for parameters in owned.values() for p in parameters):
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
        if any(n > 1 for n in counts.values()) or len(counts) != len(_learned(self)):
            raise Mistake("every parameter needs exactly one owner; one is shared by two members or terms. "
                          "Use `lend` where a module is only used, and own it where it is trained.")
        return {name: parameters for name, parameters in owned.items() if parameters}

    def searchable(self) -> tuple[str, ...]:
        """Terms that a search may weigh."""
        return tuple(name for name, term in self.terms.items() if term.searchable)

    def under(self, process: Process) -> Method:
        """The same members and terms under another process."""
        twin = copy.copy(self)
        twin.process = process
        twin._check()
        return twin

    def without(self, dropped: Collection[str]) -> Method:
        """The same members and the other terms, with the weights that they have."""
        return self.remade(terms={name: term for name, term in self.terms.items() if name not in dropped},
                           process=Without(self.process, dropped),
                           turns=[replace(turn, terms=turn.terms - frozenset(dropped)) for turn in self.turns])

    def remade(self, **changes: Any) -> Method:
        """A method of the same parts but for those that are given, by the names of the constructor's arguments."""
        parts = {"members": dict(self.members.items()), "terms": dict(self.terms.items()), "process": self.process,
                 "frozen": self.frozen, "deploy": self.deploy, "turns": self.turns, "views": self.views,
                 "companion": self.companion}
        return Method(**{**parts, **changes})

    def after_step(self, seen: Seen) -> None:
        """Let members and terms update their averages and memories."""
        parts: list[Member | Term] = [*self.members.values(), *self.terms.values()]
        for part in parts:
            part.after_step(seen, seen.clock)

    def remembered(self) -> list[str]:
        """Every address that `after_step` may read: what those read who have one of their own."""
        parts: list[Member | Term] = [*self.members.values(), *self.terms.values()]
        return [address for part in parts for address in part.reads
                if type(part).after_step not in (Member.after_step, Term.after_step)]

    def _apply(self, fn: Any, recurse: bool = True) -> Method:
        """Move or convert members, terms and frozen networks: what `to`, `double` and `cuda` call."""
        for teacher in self.frozen.values():
            teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def student(self) -> Network:
        """The network that ships."""
        member = self.members[self.deploy]
        if not isinstance(member, Network):
            raise Mistake(f"'{self.deploy}' is kept and is no Network; deploy a member that is one.")
        return member


def _learned(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@dataclass
class Stage:
    """A part of training with its own method; later stages may share members with earlier ones, the clock restarts.

    Attributes:
        method: What is trained.
        length: For how long, in lengths of the run: 1 is `training.epochs`.
        name: What records call it.
        schedule: Of the learning rate in this stage, in place of the run's.
        optimizers: What single members have otherwise in this stage; the run's settings go on top.
    """

    method: Method
    length: float = 1.0
    name: str = "train"
    schedule: ScheduleSettings | None = None
    optimizers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class Step:
    """What a companion is shown of one step.

    Attributes:
        method: The method that was stepped, unwrapped.
        batch: The step's images, on the device.
        clock: The step's place in training.
        optimizer: Steps every parameter; its state is that after the step in `after`, before it in `before`.
        seen: What the step computed; only in `after`.
        losses: The terms' values; only in `after`.
        weights: The terms' weights, in the order of the process's names; only in `after`.
        precise: Whether the step ran in full precision.
    """

    method: Method
    batch: Batch
    clock: Clock
    optimizer: torch.optim.Optimizer | Optimizers
    seen: Seen | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None
    precise: bool = True


class Companion(Protocol):
    """Goes beside the one loop: DistPro's search, of any method, or what a method brings itself, as meta-networks."""

    def to(self, device: torch.device) -> None:
        """Called once, when the method stands on its device."""
        ...

    def wants_aliases(self, step: int) -> bool:
        """Whether this step's terms should read through aliases of their own."""
        ...

    def before(self, step: Step) -> None:
        """Called with each batch before the loop's own forward pass."""
        ...

    def after(self, step: Step) -> None:
        """Called after each optimiser step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        ...
