"""Several methods as one, `kd+ffsd`: they ship one and the same network, whatever each of them calls it.

They share the network that ships, which has one supervised loss, and the teacher. Terms, under the method's name
(`kd/kl`), further members, weights and turns stay each method's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from limbeck.errors import Mistake
from limbeck.members import Frozen, Member
from limbeck.method import Method, Turn
from limbeck.process import Blended
from limbeck.seen import Clock, Outputs, Seen, called
from limbeck.terms import Term

_ORDINARY = "student"
Names = Mapping[str, str]
"""What a method calls a member -> what the blend calls it."""


def blend(methods: Mapping[str, Method]) -> Method:
    """The terms of several methods as one: `kd/kl`, `ffsd/leader/fused`, with each method's own weights.

    The network that ships has one supervised loss, `ce`, with the largest of the methods' weights for it. It is called
    as in the method that has a name of its own for it: in `kd+ffsd` the teacher pulls FFSD's leader. A method with
    several turns keeps them; all other methods join the turn that steps the network that ships.

    Args:
        methods: By the name that their terms get.

    Raises:
        Mistake: If two methods ship different networks, have different members or teachers of one name, other views or
            several turns each, or if one learns beside the loop.
    """
    own = names(methods)
    members: dict[str, Member] = {}
    frozen: dict[str, Frozen] = {}
    terms: dict[str, Term] = {}
    places: dict[str, dict[str, str]] = {}
    for name, method in methods.items():
        if method.companion is not None:
            raise Mistake(f"{name} does not blend: it learns beside the loop, by a companion. Use it alone.")
        for key, member in _named(dict(method.members.items()), own[name]).items():
            if members.setdefault(key, member) is not member:
                raise Mistake(f"{name} does not blend with the methods before it: both have a member '{key}'. Use one.")
        for key, teacher in method.frozen.items():
            if frozen.setdefault(key, teacher).network is not teacher.network:
                raise Mistake(f"{name} does not blend with the methods before it: both have a frozen network '{key}', "
                              f"and not the same one. Use one.")
        places[name] = {key: "ce" if key == method.supervised else f"{name}/{key}" for key in method.terms}
        for key, term in method.terms.items():
            if not own[name] or places[name][key] not in terms:  # the shared loss is that of who names what ships
                terms[places[name][key]] = _NamedTerm(term, own[name]) if own[name] else term
    processes = {name: method.process for name, method in methods.items()}
    return Method(members, terms, Blended(processes, places), frozen=frozen, deploy=_deployed(methods),
                  turns=_turns(methods, places, own), views=_views(methods))


def names(methods: Mapping[str, Method]) -> dict[str, Names]:
    """What each method's members are called in the blend, where it is something else.

    Raises:
        Mistake: If the methods do not ship one network.
    """
    deployed = _deployed(methods)
    if len({id(method.members[method.deploy]) for method in methods.values()}) > 1:
        raise Mistake(f"methods of a blend ship one network; {', '.join(methods)} ship different ones. Use one.")
    return {name: {method.deploy: deployed} if method.deploy != deployed else {} for name, method in methods.items()}


def _deployed(methods: Mapping[str, Method]) -> str:
    """What the blend calls the network that ships."""
    return next((method.deploy for method in methods.values() if method.deploy != _ORDINARY), _ORDINARY)


def _named(members: Mapping[str, Member], own: Names) -> dict[str, Member]:
    """Members under the blend's names; those that read others find them under the method's names."""
    return {own.get(key, key): _NamedMember(member, own) if own and member.reads else member
            for key, member in members.items()}


def _views(methods: Mapping[str, Method]) -> Sequence[str]:
    views = {method.views for method in methods.values()} - {()}
    if len(views) > 1:
        raise Mistake(f"methods of a blend look at the same further views of an image; these ask for {sorted(views)}. "
                      f"Use one of them.")
    return next(iter(views), ())


def _turns(methods: Mapping[str, Method], places: Mapping[str, Names], own: Mapping[str, Names]) -> list[Turn] | None:
    """The turns of the one method that has several; the other methods join that of the network that ships."""
    several = [name for name, method in methods.items() if len(method.turns) > 1]
    if not several:
        return None
    if len(several) > 1:
        raise Mistake(f"{' and '.join(several)} do not blend: each takes several turns in a step, and which turn comes "
                      f"first is not said. Use one, or a form of one with one turn.")
    (first,), deployed = several, _deployed(methods)
    turns = [Turn(frozenset(places[first][term] for term in turn.terms),
                  None if turn.owners is None else frozenset(own[first].get(o, o) for o in turn.owners), turn.optimizer)
             for turn in methods[first].turns]
    joined = next((i for i, turn in enumerate(turns)
                   if turn.optimizer is None and (turn.owners is None or deployed in turn.owners)), None)
    if joined is None:
        raise Mistake(f"{first} does not blend: none of its turns steps what ships by the run's optimiser, which other "
                      f"methods' terms could join. Use it alone.")
    turn, others = turns[joined], [name for name in methods if name != first]
    terms = turn.terms | {place for name in others for place in places[name].values()}
    more = {own[name].get(key, key) for name in others for key in methods[name].members}
    turns[joined] = Turn(terms, None if turn.owners is None else turn.owners | more, turn.optimizer)
    return turns


class _NamedTerm(Term):
    """A term that finds members under the names that its method has for them."""

    def __init__(self, term: Term, own: Names):
        super().__init__()
        self.term, self.own = term, own
        self.reads = tuple(called(address, own) for address in term.reads)
        self.owner, self.searchable = own.get(term.owner, term.owner), term.searchable
        self.supervised, self.labelled = term.supervised, term.labelled
        self.sure, self.indexed = term.sure, term.indexed

    def forward(self, seen: Seen) -> Tensor:
        value: Tensor = self.term(seen.under(self.own))
        return value

    def after_step(self, seen: Seen, clock: Clock) -> None:
        self.term.after_step(seen.under(self.own), clock)


class _NamedMember(Member):
    """A member that finds others under the names that its method has for them."""

    def __init__(self, member: Member, own: Names):
        super().__init__()
        self.member, self.own = member, own
        self.reads, self.answers = tuple(called(address, own) for address in member.reads), member.answers
        self.labelled, self.indexed, self.auxiliary = member.labelled, member.indexed, dict(member.auxiliary)

    def forward(self, seen: Seen) -> Outputs:
        outputs: Outputs = self.member(seen.under(self.own))
        return outputs

    def after_step(self, seen: Seen, clock: Clock) -> None:
        self.member.after_step(seen.under(self.own), clock)
