"""Further views: a learning network's second look, a frozen one's, and what a method refuses of either."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from core_tiny import Plain, batch, clock, network, setting

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.losses import hint
from limbeck.members import Frozen, Look
from limbeck.method import Method
from limbeck.methods.kd import kd
from limbeck.methods.mlkd import mlkd
from limbeck.process import Scheduled
from limbeck.seen import Batch, Seen
from limbeck.terms import Match
from limbeck.wiring.blending import blend


def viewed(count: int = 2) -> Batch:
    """A batch with so many further views."""
    one = batch()
    chance = torch.Generator().manual_seed(3)
    return replace(one, views=tuple(torch.rand(one.images.shape, generator=chance) for _ in range(count)))


def twice(look: Look | None = None, *, frozen: Frozen | None = None, views: tuple[str, ...] = ("same",)) -> Method:
    """A student, pulled towards a stage of another look of it or of a frozen network's."""
    student = network(Plain())
    members = {"student": student, **({"again": look or Look(student)} if frozen is None else {})}
    term = Match("student.logits", "again.stage1", hint)
    return Method(members, {"alike": term}, Scheduled({"alike": 1.0}), views=views,
                  frozen={} if frozen is None else {"again": frozen})


def test_a_second_look_is_tapped_and_learns() -> None:
    method, images = twice(), viewed(1)
    seen = method.see(images, clock())
    student = method.members["student"]
    torch.testing.assert_close(seen["again.stage1"], student.read(images.views[0])["stage1"])
    seen["again.stage1"].sum().backward()
    assert student.module.stage1.conv.weight.grad is not None
    assert not list(method.members["again"].parameters())
    assert list(method.owners()) == ["student"]


def test_a_frozen_look_is_in_eval_mode_and_feels_nothing() -> None:
    teacher = network(Plain())
    method, images = twice(frozen=Frozen(teacher, view=1), views=("same", "strong")), viewed()
    teacher.train()
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    seen = method.see(images, clock())
    assert not seen["again.stage1"].requires_grad
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())
    torch.testing.assert_close(seen["again.stage1"], teacher.eval().read(images.views[1])["stage1"])


def test_a_frozen_network_looks_at_the_images_and_at_a_view() -> None:
    teacher, images = network(Plain()), viewed()
    plain, further = Frozen(teacher), Frozen(teacher, view=0, batch_statistics=True)
    seen = Seen(images, clock(), {"plain": plain, "further": further})
    torch.testing.assert_close(seen["plain.logits"], teacher.logits(images.images))
    assert not torch.allclose(seen["further.logits"], teacher.logits(images.views[0]))  # by the batch's statistics
    teacher.train()
    torch.testing.assert_close(seen["further.logits"], teacher.logits(images.views[0]))


def test_a_look_of_a_network_that_does_not_learn_is_refused() -> None:
    with pytest.raises(Mistake, match=r"'again' is one of tiny, which is none here. For a teacher give frozen=\{'agai"):
        twice(Look(network(Plain())))


@pytest.mark.parametrize("learning", [True, False])
def test_a_view_that_the_method_does_not_ask_for_is_refused(learning: bool) -> None:
    frozen = None if learning else Frozen(network(Plain()), view=0)
    with pytest.raises(Mistake, match=r"'again' looks at view 0 of each image, counted from 0; the method asks for \["):
        twice(frozen=frozen, views=())


def test_a_blend_looks_at_one_methods_views() -> None:
    student, teacher = tiny(), tiny(12, seed=1)
    both = blend({"kd": kd(student, teacher, setting()), "mlkd": mlkd(student, teacher, setting())})
    assert both.views == ("strong",)
    again = kd(student, teacher, setting())
    again.views = ("same",)
    with pytest.raises(Mistake, match=r"the same further views of an image; these ask for \[\('same',\), \('strong'"):
        blend({"mlkd": mlkd(student, teacher, setting()), "other": again})
