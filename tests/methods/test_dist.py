"""DIST: correlations of beliefs over classes and over the batch."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import ce, logits, setting, total
from torch import Tensor

from limbeck.contract.trial import tiny
from limbeck.methods.dist import dist


def uncorrelated(a: Tensor, b: Tensor) -> Tensor:
    """1 - the mean of Pearson's correlation of rows."""
    return 1 - torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)]).mean()


@pytest.mark.parametrize(("options", "inter", "intra", "temperature"), [
    ({}, 2, 2, 4), ({"inter": 1.0, "intra": 0.5, "temperature": 1.0}, 1, 0.5, 1)])
def test_total_is_the_task_and_both_correlations(options, inter, intra, temperature):
    method, z = dist(tiny(), tiny(12, seed=1), setting(), **options), logits("student", "teacher")
    s, t = ((z[name] / temperature).softmax(1) for name in ("student", "teacher"))
    expected = (ce(z["student"]) + temperature**2 * inter * uncorrelated(s, t)
                + temperature**2 * intra * uncorrelated(s.T, t.T))
    torch.testing.assert_close(total(method, z), expected, rtol=1e-6, atol=1e-6)


def test_each_kind_of_relation_is_a_term():
    method = dist(tiny(), tiny(12, seed=1), setting(), inter=3.0, intra=5.0, ce=0.5)
    assert method.process.names == ("ce", "inter", "intra")
    assert method.process._weights == {"ce": 0.5, "inter": 3, "intra": 5}
