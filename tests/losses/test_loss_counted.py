"""Correlations of which some rows count."""

import pytest
import torch

from limbeck.losses import batch_correlation, class_correlation


@pytest.mark.parametrize("distance", [class_correlation, batch_correlation])
def test_rows_that_count_add_up_to_all(draw, distance):
    student, teacher = draw(4, 4).requires_grad_(), draw(4, 4)
    counted = torch.tensor([True, False, False, True])
    some, others = (distance(student, teacher, counted=rows) for rows in (counted, ~counted))
    torch.testing.assert_close(some + others, distance(student, teacher))
    assert some != others
    assert distance(student, teacher, counted=counted & False) == 0


def test_only_rows_of_the_chosen_classes_are_summed(draw):
    student, teacher = draw(3, 2), draw(3, 2)
    s, t = ((z / 4).softmax(1) for z in (student, teacher))
    expected = ((s[:, 1] @ s - t[:, 1] @ t) ** 2).sum() / 2
    torch.testing.assert_close(class_correlation(student, teacher, counted=torch.tensor([False, True])), expected)


def test_only_rows_of_the_chosen_samples_are_summed(draw):
    student, teacher = draw(3, 2), draw(3, 2)
    s, t = ((z / 4).softmax(1) for z in (student, teacher))
    expected = ((s[0] @ s.T - t[0] @ t.T) ** 2).sum() / 3
    first = torch.tensor([True, False, False])
    torch.testing.assert_close(batch_correlation(student, teacher, counted=first), expected)
