"""A method: only what active terms read is computed, each parameter has one owner, and wrong names are told."""

from __future__ import annotations

import copy

import pytest
import torch
from core_tiny import Plain, batch, clock, network
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.members import Frozen, Look, Member, Network
from limbeck.method import Method, Turn
from limbeck.process import Scheduled
from limbeck.seen import Clock, Outputs, Seen
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise, Term


class Mean(Member):
    """Scaffolding that reads the student live."""

    reads = ("student.stage1",)

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.steps: list[int] = []

    def forward(self, seen: Seen) -> Outputs:
        return {"mean": seen["student.stage1"].mean((2, 3)) * self.scale}

    def after_step(self, seen: Seen, clock: Clock) -> None:
        self.steps.append(clock.step)


def parts() -> dict[str, dict]:
    """A student, scaffolding on it, a peer and a teacher, and a term to each."""
    return {
        "members": {"student": network(Plain()), "mean": Mean(), "peer": network(Plain())},
        "frozen": {"teacher": network(Plain(12))},
        "terms": {
            "ce": Supervise("student", Classification()),
            "kl": Match("student.logits", "teacher.logits", nn.functional.mse_loss),
            "map": Match("student.stage2", "teacher.stage2", nn.functional.mse_loss, connect=nn.Conv2d(8, 12, 1)),
            "mean": Match("mean.mean", "peer.pooled", nn.functional.mse_loss),
        },
    }


def build(**changes) -> Method:
    given = parts() | changes
    given.setdefault("process", Scheduled(dict.fromkeys(given["terms"], 1.0)))
    return Method(given.pop("members"), given.pop("terms"), given.pop("process"), **given)


def look(method: Method, *active: str) -> dict[str, Tensor]:
    return method(method.see(batch(), clock()), frozenset(active or method.terms))


# --- what is computed


@pytest.mark.parametrize(("active", "expected"), [
    (("ce",), {"student": 1}),
    (("kl",), {"student": 1, "teacher": 1}),
    (("ce", "kl", "map"), {"student": 1, "teacher": 1, "connector": 1}),
    (("mean",), {"student": 1, "mean": 1, "peer": 1}),
    ((), {"student": 1, "teacher": 1, "connector": 1, "mean": 1, "peer": 1}),
])
def test_only_what_active_terms_read_is_computed_and_once(active, expected):
    method, calls = build(), {}
    watched = {**dict(method.members.items()), **method.frozen, "connector": method.terms["map"].connect}
    for name, part in watched.items():
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    losses = look(method, *active)
    assert list(losses) == [name for name in method.terms if not active or name in active]
    assert calls == expected


def test_naming_a_layer_taps_it_for_students_and_teachers():
    method = build()
    seen = method.see(batch(), clock())
    assert seen.outputs("student").keys() == {"logits", "stage1", "stage2"}
    assert seen.outputs("peer").keys() == {"logits", "pooled"}
    assert seen.outputs("teacher").keys() == {"logits", "stage2"}


def test_losses_pull_those_whom_their_terms_read_live():
    method = build()
    felt = {}
    for name in method.terms:
        method.zero_grad()
        look(method, name)[name].backward()
        felt[name] = {path.split(".")[1] for path, p in method.named_parameters() if p.grad is not None}
    assert felt == {"ce": {"student"}, "kl": {"student"}, "map": {"student", "map"}, "mean": {"student", "mean"}}


def test_a_step_can_be_seen_with_what_is_known():
    method = build()
    teacher = {"teacher": {"logits": torch.zeros(5, 3), "stage2": torch.zeros(5, 12, 8, 8)}}
    method.frozen["teacher"].register_forward_hook(lambda *_: pytest.fail("the teacher ran"))
    losses = method(method.see(batch(), clock(), known=teacher), frozenset({"kl"}))
    torch.testing.assert_close(losses["kl"], method.see(batch(), clock())["student.logits"].square().mean())


def test_members_and_terms_are_told_of_each_step():
    method, told = build(), []
    method.terms["kl"].after_step = lambda seen, clock: told.append((seen, clock))
    seen = method.see(batch(), clock(7))
    method.after_step(seen)
    assert method.members["mean"].steps == [7]
    assert told == [(seen, clock(7))]


# --- who owns what


def test_every_parameter_has_exactly_one_owner():
    method = build()
    owners = method.owners()
    assert list(owners) == ["student", "mean", "peer"]
    owned = [p for parameters in owners.values() for p in parameters]
    assert len({id(p) for p in owned}) == len(owned)
    assert {id(p) for p in owned} == {id(p) for p in method.parameters()}
    connector = method.terms["map"].connect
    assert {id(connector.weight), id(connector.bias)} <= {id(p) for p in owners["student"]}


def test_members_without_parameters_own_nothing():
    given = parts()
    del given["members"]["mean"].scale
    given["members"]["mean"].scale = 1.0
    assert list(build(**given).owners()) == ["student", "peer"]


@pytest.mark.parametrize("shared", ["two members", "a member and a term", "two terms"])
def test_a_shared_parameter_is_a_mistake(shared):
    given = parts()
    if shared == "two members":
        given["members"]["peer"].module.fc = given["members"]["student"].module.fc
    elif shared == "a member and a term":
        given["terms"]["kl"].connect = given["members"]["student"].module.fc
    else:
        given["terms"]["kl"].connect = given["terms"]["map"].connect
    with pytest.raises(Mistake, match=r"exactly one owner; one is shared.*Use `lend`"):
        build(**given).owners()


def test_frozen_networks_are_no_part_of_the_method_and_move_with_it():
    method = build()
    teacher = method.frozen["teacher"]
    assert type(teacher) is Frozen
    own = {id(p) for p in teacher.parameters()}
    assert own
    assert not own & {id(p) for p in method.parameters()}
    names = [*method.state_dict(), *dict(method.named_modules())]
    assert not any("teacher" in name or "frozen" in name for name in names)
    assert method.to(torch.float64) is method
    assert {p.dtype for p in (*method.parameters(), *teacher.parameters())} == {torch.float64}
    assert teacher.network.mean.dtype == torch.float64
    method.train()
    assert not any(m.training for m in teacher.modules())


def test_a_frozen_network_may_come_with_its_own_settings():
    frozen = Frozen(network(Plain(12)), batch_statistics=True)
    assert build(frozen={"teacher": frozen}).frozen == {"teacher": frozen}


def test_a_deep_copy_is_a_method_of_its_own():
    method = build()
    twin, before = copy.deepcopy(method), look(method, "kl")["kl"]
    with torch.no_grad():
        for parameter in (*method.parameters(), *method.frozen["teacher"].parameters()):
            parameter.zero_()
    torch.testing.assert_close(look(twin, "kl")["kl"], before)


# --- another process


def test_another_process_keeps_members_terms_and_frozen_networks():
    method, other = build(), Scheduled({"ce": 2.0, "kl": 0.0, "map": 0.0, "mean": 0.0})
    twin = method.under(other)
    assert (twin.process, method.process.names) == (other, other.names)
    assert method.process is not other
    assert twin.members is method.members
    assert twin.terms is method.terms
    assert twin.frozen is method.frozen
    assert [id(p) for p in twin.parameters()] == [id(p) for p in method.parameters()]
    with pytest.raises(Mistake, match=r"terms without: \['kl', 'map', 'mean'\]"):
        method.under(Scheduled({"ce": 1.0}))


def test_supervised_terms_are_not_searched():
    assert build().searchable() == ("kl", "map", "mean")


def test_one_turn_computes_everything_unless_turns_are_given():
    assert build().turns == (Turn(frozenset({"ce", "kl", "map", "mean"})),)
    turns = [Turn(frozenset({"ce", "kl", "map"})), Turn(frozenset({"mean"}), frozenset({"mean"}))]
    assert build(turns=turns).turns == tuple(turns)


# --- mistakes


def unowned() -> Term:
    term = Match("student.logits", "teacher.logits", nn.functional.mse_loss, connect=nn.Linear(3, 3))
    term.owner = "studnt"
    return term


@pytest.mark.parametrize(("changes", "message"), [
    ({"deploy": "studnet"}, r"keeps 'studnet', which is no member; closest: \['student'\]"),
    ({"deploy": "teacher"}, r"keeps 'teacher', which is no member"),
    ({"process": Scheduled({"ce": 1.0, "kl": 1.0, "map": 1.0})},
     r"terms without: \['mean'\], weights without a term: \[\]"),
    ({"process": Scheduled({"ce": 1.0, "kl": 1.0, "map": 1.0, "mean": 1.0, "at": 1.0})}, r"without a term: \['at'\]"),
    ({"terms": {"kl": Match("studen.logits", "teacher.logits", nn.functional.mse_loss)}},
     r"'studen\.logits' is read, and there is no member 'studen'; closest: \['student'"),
    ({"terms": {"kl": Match("student.logits", "teacher.stage3", nn.functional.mse_loss)}},
     r"tiny has no layer 'stage3'; closest: \['stage"),
    ({"terms": {"kl": Match("student.stage2.nrm", "teacher.logits", nn.functional.mse_loss)}},
     r"no layer 'stage2\.nrm'; closest: \['stage2\.norm'"),
    ({"terms": {"kl": unowned()}}, r"term 'kl' has parameters and is owned by 'studnt', .* closest: \['student'"),
    ({"frozen": {"teacher": network(Plain()), "peer": network(Plain())}}, r"\['peer'\] both learn and are frozen"),
])
def test_names_that_do_not_fit_are_told_when_the_method_is_built(changes, message):
    with pytest.raises(Mistake, match=message):
        build(**changes)


def test_views_that_nobody_makes_are_told_when_the_method_is_built():
    viewing, student = network(Plain()), network(Plain())
    viewing.view = 1
    members = {"student": student, "mean": Mean(), "peer": network(Plain())}
    for changes in ({"members": {**members, "peer": viewing}}, {"members": {**members, "look": Look(student, 1)}},
                    {"frozen": {"teacher": Frozen(network(Plain(12)), view=1)}}):
        build(**changes, views=["same", "strong"])
        with pytest.raises(Mistake, match=r"looks at view 1 of each image, .* the method asks for \['same'\]"):
            build(**changes, views=["same"])


def test_what_ships_must_be_a_network():
    assert isinstance(build().student(), Network)
    with pytest.raises(Mistake, match="'mean' is kept and is no Network"):
        build(deploy="mean").student()


class Paraphrase(Member):
    """Looks at a teacher."""

    reads = ("teacher.stage1",)

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Conv2d(12, 4, 1)

    def forward(self, seen: Seen) -> Outputs:
        return {"factor": self.factor(seen["teacher.stage1"])}


def test_a_frozen_member_may_look_at_a_frozen_network():
    term = Match("student.stage1", "paraphrase.factor", nn.functional.mse_loss, connect=nn.Conv2d(8, 4, 1))
    method = build(frozen={"teacher": network(Plain(12)), "paraphrase": Paraphrase()}, terms={"factor": term})
    look(method)["factor"].backward()
    assert not any("factor" in name and "terms" not in name for name in method.state_dict())
    assert all(p.grad is None for frozen in method.frozen.values() for p in frozen.parameters())
    assert not method.see(batch(), clock())["paraphrase.factor"].requires_grad
