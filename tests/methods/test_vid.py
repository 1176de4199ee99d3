"""VID: the regressor, its variances, and the likelihood of the teacher's features."""

from __future__ import annotations

import pytest
import torch
from features_tiny import convolved, features, parameters, total
from methods_tiny import ce, setting

from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.methods.vid import Prediction, vid


def test_total_is_the_task_and_the_negative_log_likelihood_of_every_stage():
    student, teacher = tiny(), tiny(12, seed=1)
    method = vid(student, teacher, setting())
    known = features(student, teacher, stages := ["stage1", "stage2", "stage3"])
    for i, stage in enumerate(stages, start=1):
        torch.nn.init.normal_(method.terms[stage].raw, mean=i)
    found, expected = total(method, known), ce(known["student"]["logits"])
    for stage in stages:
        layers = [layer for layer in method.terms[stage].regressor if isinstance(layer, torch.nn.Conv2d)]
        mean = known["student"][stage]
        for layer in layers[:-1]:
            mean = convolved(mean, layer).relu()
        gap = known["teacher"][stage] - convolved(mean, layers[-1])
        variance = (method.terms[stage].raw.exp().log1p() + 1e-5)[:, None, None]
        expected = expected + (gap.square() / variance + variance.log()).mean() / 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("start", [5.0, 0.3, 1000.0])
def test_regressors_and_variances_are_as_large_and_start_as_published(start):
    term = Prediction("student.a", "teacher.b", (8, 4, 4), (12, 4, 4), variance=start, learned=True)
    assert parameters(term) == 8 * 12 + 12 * 12 + 12 * 12 + 12
    assert all(layer.bias is None for layer in term.regressor if isinstance(layer, torch.nn.Conv2d))
    torch.testing.assert_close(term.variance, torch.full((12,), start))


def test_variances_that_are_not_learned_stay():
    method = vid(tiny(), tiny(12), setting(), learned=False, variance=2.0)
    names = {name.rpartition(".")[2] for name, _ in method.terms["stage1"].named_parameters()}
    assert names == {"weight"}
    assert "raw" in method.terms["stage1"].state_dict()
    torch.testing.assert_close(method.terms["stage1"].variance, torch.full((12,), 2.0))


@pytest.mark.parametrize("start", [0.0, -1.0, 1e-5, float("nan")])
def test_a_variance_that_is_none_is_a_mistake(start):
    with pytest.raises(Mistake, match=r"vid's variance starts above 1e-05; got .*\. Use the authors' 5"):
        vid(tiny(), tiny(12), setting(), variance=start)


def test_a_larger_student_is_pooled_before_its_regressor_and_a_larger_teacher_after():
    x = torch.randn(2, 8, 8, 8)
    shrinking = Prediction("student.a", "teacher.b", (8, 8, 8), (12, 4, 4), variance=5.0, learned=True)
    pooled = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(shrinking.regressor(x), shrinking.regressor(pooled))
    assert Prediction("student.a", "teacher.b", (17, 8), (12, 16, 16), variance=5.0, learned=True).regressor(
        torch.randn(2, 17, 8)).shape == (2, 12, 4, 4)
