"""LSKD: KD on logits of mean 0 and deviation 1."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import ce, kl, logits, setting, total
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.lskd import lskd, on_standardised


def zscored(z: Tensor) -> Tensor:
    return torch.stack([(row - row.mean()) / (((row - row.mean()) ** 2).sum() / 3).sqrt() for row in z])


@pytest.mark.parametrize(("options", "weight", "temperature"), [
    ({}, 9, 2), ({"temperature": 3.0, "kl": 1.0}, 1, 3)])
def test_total_is_a_tenth_of_the_task_and_9_divergences(options, weight, temperature):
    method, z = lskd(tiny(), tiny(12, seed=1), setting(), **options), logits("student", "teacher")
    divergence = kl(zscored(z["student"]), zscored(z["teacher"]), temperature)
    torch.testing.assert_close(total(method, z), 0.1 * ce(z["student"]) + weight * divergence, rtol=1e-6, atol=1e-6)


def test_any_distance_can_be_taken_between_standardised_logits():
    def distance(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return (labels[:, None] * (student - 2 * teacher)).sum()

    z, labels = logits("student", "teacher"), torch.arange(8)
    expected = distance(zscored(z["student"]), zscored(z["teacher"]), labels)
    torch.testing.assert_close(on_standardised(distance)(z["student"], z["teacher"], labels), expected,
                               rtol=1e-6, atol=1e-6)
