"""Precision and seed of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """Weights are the same whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def double() -> Iterator[None]:
    """float64 throughout, networks, images, weights and raw weights alike: derivatives are compared to rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
