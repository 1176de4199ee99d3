"""What has been seen: outputs by address, computed once when first asked for; aliases; random numbers; clocks."""

from __future__ import annotations

import pytest
import torch
from core_tiny import batch, clock
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.seen import Batch, Clock, Outputs, Seen, random_state, set_random_state


class Counted:
    """A member that counts how often it runs, and may read others or draw."""

    def __init__(self, *, reads: str = "", draws: bool = False):
        self.calls, self.reads, self.draws = 0, reads, draws
        self.weight = torch.ones(3, requires_grad=True)

    def __call__(self, seen: Seen) -> Outputs:
        self.calls += 1
        x = seen[self.reads] if self.reads else self.weight
        return {"logits": 2 * x + (torch.rand(3) if self.draws else 0), "stage1": x + 1}


def test_a_member_is_computed_once_and_only_when_asked_for():
    members = {"student": Counted(), "peer": Counted()}
    seen = Seen(batch(), clock(), members)
    assert members["student"].calls == 0
    assert seen["student.logits"] is seen.outputs("student")["logits"]
    assert seen["student.stage1"].tolist() == [2, 2, 2]
    assert seen.of("kl") is seen
    assert [m.calls for m in members.values()] == [1, 0]


def test_a_tap_may_have_dots_in_its_name():
    seen = Seen(batch(), clock(), {}, known={"student": {"layer1.0:in#2": torch.ones(1)}})
    assert seen["student.layer1.0:in#2"].item() == 1


def test_live_tensors_pull_and_detached_ones_do_not():
    seen = Seen(batch(), clock(), {"student": Counted()})
    assert seen["student.logits"].requires_grad
    assert not seen.detached("student.logits").requires_grad
    assert seen.detached("student.logits").data_ptr() == seen["student.logits"].data_ptr()


def test_what_is_known_is_not_computed_again():
    teacher = Counted()
    seen = Seen(batch(), clock(), {"teacher": teacher}, known={"teacher": {"logits": torch.zeros(3)}})
    assert seen["teacher.logits"].tolist() == [0, 0, 0]
    assert teacher.calls == 0


def test_computed_leaves_out_who_was_not_asked():
    seen = Seen(batch(), clock(), {"student": Counted(), "teacher": Counted()})
    assert seen.computed(["student", "teacher"]) == {}
    _ = seen["student.logits"]
    found = seen.computed(["student", "teacher"])
    assert found.keys() == {"student"}
    assert found["student"].keys() == {"logits", "stage1"}
    assert not any(x.requires_grad for x in found["student"].values())


def test_a_name_that_is_not_there_is_a_mistake():
    seen = Seen(batch(), clock(), {"student": Counted()})
    with pytest.raises(Mistake, match=r"'student\.stage' is read, .* closest: \['stage1'\].*reads"):
        _ = seen["student.stage"]
    with pytest.raises(Mistake, match=r"'studen' is read, .* no such member; closest: \['student'\]"):
        _ = seen["studen.logits"]


# --- aliases


def aliased(**members: Counted) -> Seen:
    return Seen(batch(), clock(), members, aliased=True)


def test_the_gradient_at_an_alias_is_its_terms_own():
    student = Counted()
    seen = aliased(student=student)
    one, two = seen.of("one")["student.logits"], seen.of("two")["student.logits"]
    (3 * one.sum() + 5 * (two * two).sum() + 7 * seen.of("two")["student.stage1"].sum()).backward()
    assert seen.gradients["one"]["student.logits"].tolist() == [3, 3, 3]
    assert seen.gradients["two"]["student.logits"].tolist() == [20, 20, 20]
    assert seen.gradients["two"]["student.stage1"].tolist() == [7, 7, 7]
    assert student.weight.grad.tolist() == [2 * 3 + 2 * 20 + 7] * 3
    assert student.calls == 1


def test_the_gradient_at_an_alias_is_no_copy_and_lies_as_it_came():
    weight = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    seen = Seen(batch(), clock(), {"student": lambda _: {"map": 2 * weight}}, aliased=True)
    came: list[torch.Tensor] = []
    seen.of("one")["student.map"].register_hook(came.append)
    (seen.of("one")["student.map"] * torch.rand_like(weight)).sum().backward()
    kept = seen.gradients["one"]["student.map"]
    assert kept.data_ptr() == came[0].data_ptr()
    assert kept.is_contiguous(memory_format=torch.channels_last)


def test_a_term_that_reads_twice_reads_one_alias():
    seen = aliased(student=Counted())
    term = seen.of("kl")
    assert term["student.logits"] is seen.of("kl")["student.logits"]
    assert term["student.logits"] is not seen["student.logits"]
    assert term.of("other")["student.logits"] is seen.of("other")["student.logits"]


def test_what_feels_nothing_gets_no_alias():
    seen = aliased(student=Counted())
    term = seen.of("kl")
    assert not term.detached("student.logits").requires_grad
    with torch.no_grad():
        seen.outputs("student")["stage1"] = torch.ones(3)
    assert term["student.stage1"] is seen["student.stage1"]
    assert seen.aliases["kl"] == {}


def test_members_read_the_activations_and_not_a_terms_alias():
    student, fusion = Counted(), Counted(reads="student.stage1")
    seen = aliased(student=student, fusion=fusion)
    term = seen.of("level")
    term["fusion.logits"].sum().backward()
    assert list(seen.aliases["level"]) == ["fusion.logits"]
    assert student.weight.grad.tolist() == [2, 2, 2]
    assert term.computed(["student"])["student"]["logits"].tolist() == [2, 2, 2]


# --- random states


def test_random_numbers_are_those_that_an_aliased_step_drew():
    first = aliased(student=Counted(draws=True), peer=Counted(draws=True))
    drawn = {name: first[f"{name}.logits"] for name in ("student", "peer")}
    torch.rand(5)
    again = Seen(batch(), clock(), {"student": Counted(draws=True), "peer": Counted(draws=True)}, random=first.random)
    for name in ("peer", "student"):
        assert torch.equal(again[f"{name}.logits"], drawn[name])
    assert not torch.equal(drawn["student"], drawn["peer"])


def test_an_ordinary_step_notes_and_sets_nothing():
    seen, before = Seen(batch(), clock(), {"student": Counted()}), torch.get_rng_state()
    _ = seen["student.logits"]
    assert seen.random == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_can_be_set_again():
    cpu = torch.device("cpu")
    state = random_state(cpu)
    drawn = torch.rand(3)
    set_random_state(state, cpu)
    assert torch.equal(torch.rand(3), drawn)


# --- batch and clock


def test_a_batch_moves_whole():
    one = batch()
    moved = Batch(one.images, None, one.index, (one.images + 1, one.images + 2)).to("meta")
    assert len(moved) == 5
    assert moved.targets is None
    tensors: tuple[Tensor, ...] = (moved.images, moved.index, *moved.views)
    assert len(tensors) == 4
    assert all(x.device.type == "meta" for x in tensors)
    assert one.to("meta").targets.device.type == "meta"


@pytest.mark.parametrize(("step", "epoch", "progress", "start"), [(0, 0, 0, 0), (3, 0, 0.3, 0), (4, 1, 0.4, 4),
                                                                 (10, 2, 1, 8), (12, 3, 1, 12)])
def test_a_clock_knows_epoch_and_progress(step, epoch, progress, start):
    now = Clock(step, 11, 4)
    assert (now.epoch, now.progress, now.epochs) == (epoch, pytest.approx(progress), 2.75)
    assert now.at_epoch_start() == Clock(start, 11, 4)
    assert now.tick() == Clock(step + 1, 11, 4)


def test_a_run_of_one_step_is_at_its_start():
    assert Clock(0, 1, 1).progress == 0
