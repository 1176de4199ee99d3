"""FitNet: the hint through its regressor, beside the task or before it."""

from __future__ import annotations

import pytest
import torch
from features_tiny import convolved, features, losses, normed, total, weights_of
from methods_tiny import NOW, ce, kl, setting, trainer

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.methods.fitnet import fitnet


def test_joint_total_is_the_task_and_a_hundred_hints():
    student, teacher = tiny(), tiny(12, seed=1)
    method = fitnet(student, teacher, setting())
    known = features(student, teacher, ["stage2"])
    found = total(method, known)
    hinted = normed(convolved(known["student"]["stage2"], method.terms["hint"].connect[1])).relu()
    expected = ce(known["student"]["logits"]) + 100 * (hinted - known["teacher"]["stage2"]).square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert list(method.terms) == ["ce", "hint"]


def test_staged_is_the_hint_and_then_kd():
    student, teacher = tiny(), tiny(12, seed=1)
    first, then = fitnet(student, teacher, setting(), form="staged", hint_length=0.2)
    assert (first.length, first.schedule.kind, then.length, then.schedule) == (0.2, "constant", 1, None)
    assert weights_of(first.method) == {"hint": 100}
    assert first.method.student() is then.method.student() is student
    known = features(student, teacher, ["stage2"])
    z, target = known["student"]["logits"], known["teacher"]["logits"]
    torch.testing.assert_close(total(then.method, known), 0.1 * ce(z) + 0.9 * kl(z, target), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("form", "plain"), [("joint", {"ce": 1.0}), ("staged", {"ce": 0.1, "kl": 0.9})])
def test_weights_are_the_forms_own_unless_given(form, plain):
    def second(**options):
        built = fitnet(tiny(), tiny(12), setting(), form=form, **options)
        weights = weights_of(built[1].method if isinstance(built, list) else built)
        return {name: weight for name, weight in weights.items() if name != "hint"}

    assert second() == pytest.approx(plain)
    assert second(ce=0.3, kl=0.4) == pytest.approx({"ce": 0.3, "kl": 0.4})
    assert second(kl=0) == pytest.approx({"ce": plain["ce"]})


def test_the_hint_trains_only_up_to_its_layer(tmp_path):
    student = tiny()
    stages = fitnet(student, tiny(12, seed=1), setting(), form="staged")
    before = {name: p.detach().clone() for name, p in student.module.named_parameters()}
    trainer(stages[:1], tmp_path).fit()
    moved = {name.split(".")[0] + name.split(".")[1] * name.startswith("stages") for name, p
             in student.module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"stem", "stages0", "stages1"}


def test_any_layers_can_be_named():
    method = fitnet(tiny(), tiny(12), setting(), student_tap="stages.0.0", teacher_tap="stage3")
    assert method.terms["hint"].reads == ("student.stages.0.0", "teacher.stage3")
    student, teacher = tiny(), tiny(12)
    far = fitnet(student, teacher, setting(), student_tap="stage1", teacher_tap="stage3")
    known = features(student, teacher, ["stage1"], ["stage3"])
    assert far.terms["hint"].connect.double()(known["student"]["stage1"]).shape == known["teacher"]["stage3"].shape
    assert losses(far, known, NOW)["hint"] > 0
    with pytest.raises(Mistake, match=r"tiny8 has no layer 'stage9'; closest"):
        fitnet(tiny(), tiny(12), setting(), student_tap="stage9")
