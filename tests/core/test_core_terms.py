"""Terms: whom they pull, whom they feel nothing for, and in which precision they measure."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from core_tiny import batch, clock
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.seen import Batch, Outputs, Seen
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise, Term, full


class Known:
    """Outputs that remember what they feel."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        self.outputs: dict[str, Outputs] = {
            name: {tap: torch.randn(5, 3, dtype=dtype, requires_grad=True) for tap in ("logits", "other")}
            for name in ("student", "teacher")}

    def seen(self, one: Batch | None = None) -> Seen:
        return Seen(one or batch(), clock(), {}, known=self.outputs)

    def felt(self) -> set[str]:
        return {f"{name}.{tap}" for name, outputs in self.outputs.items() for tap, x in outputs.items()
                if x.grad is not None}


def difference(student: Tensor, source: Tensor) -> Tensor:
    return (student - source).square().sum()


# --- supervise


def test_supervision_is_the_tasks_loss_of_one_member():
    known, one = Known(), batch()
    term = Supervise("student", Classification(label_smoothing=0.1), tap="other")
    loss = term(known.seen(one))
    expected = F.cross_entropy(known.outputs["student"]["other"], one.targets, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert known.felt() == {"student.other"}
    assert (term.reads, term.owner, term.searchable) == (("student.other",), "student", False)


def test_supervision_without_labels_is_a_mistake():
    one = batch()
    with pytest.raises(Mistake, match=r"supervised loss of 'student' needs labelled images.*set the weight"):
        Supervise("student", Classification())(Known().seen(Batch(one.images, None, one.index)))


# --- match


def test_a_source_feels_nothing_unless_it_is_pulled_as_well():
    for detach, felt in ((True, {"student.logits"}), (False, {"student.logits", "teacher.logits"})):
        known = Known()
        term = Match("student.logits", "teacher.logits", difference, detach=detach)
        loss = term(known.seen())
        loss.backward()
        expected = (known.outputs["student"]["logits"] - known.outputs["teacher"]["logits"]).square().sum()
        torch.testing.assert_close(loss, expected)
        assert known.felt() == felt


def test_a_match_reads_both_sides_and_belongs_to_the_first_student():
    term = Match(("student.logits", "peer.other"), "teacher.stage1.pre", difference)
    assert term.reads == ("student.logits", "peer.other", "teacher.stage1.pre")
    assert (term.owner, term.searchable) == ("student", True)


def test_connectors_learn_on_both_sides():
    known = Known()
    one, two = nn.Linear(3, 4), nn.Linear(3, 4)
    term = Match("student.logits", "teacher.logits", difference, connect=one, connect_source=two)
    term(known.seen()).backward()
    assert all(p.grad is not None for p in term.parameters())
    assert len(list(term.parameters())) == 4
    assert known.felt() == {"student.logits"}


def test_several_addresses_come_as_tuples_and_labels_behind_them():
    known, one, given = Known(), batch(), []

    def distance(*arguments: object) -> Tensor:
        given.extend(arguments)
        return torch.zeros(())

    class Split(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, 2 * x

    Match(("student.logits", "student.other"), "teacher.logits", distance, labelled=True, connect_source=Split())(
        known.seen(one))
    students, sources, labels = given
    assert students == (known.outputs["student"]["logits"], known.outputs["student"]["other"])
    assert torch.equal(sources[1], 2 * known.outputs["teacher"]["logits"])
    assert labels is one.targets


@pytest.mark.parametrize(("dtype", "measured"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32),
                                                 (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_distances_are_taken_in_full_precision(dtype, measured):
    found = []

    def distance(student: Tensor, source: Tensor) -> Tensor:
        found.extend([student.dtype, source.dtype, torch.is_autocast_enabled("cpu"), (student @ source.T).dtype])
        return (student - source).square().mean()

    known = Known(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Match("student.logits", "teacher.logits", distance)(known.seen())
        supervised = Supervise("student", Classification())(known.seen())
    assert found == [measured, measured, False, measured]
    assert (loss.dtype, supervised.dtype) == (measured, measured)
    (loss + supervised).backward()
    assert known.outputs["student"]["logits"].grad.dtype == dtype


def test_full_keeps_what_is_precise():
    assert full(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert full(x := torch.ones(1)) is x


def test_a_term_must_say_what_it_measures():
    with pytest.raises(TypeError, match=r"Term must define forward\(seen\) -> Tensor"):
        Term()(Known().seen())
