"""The peak of a run's memory."""

from __future__ import annotations

import torch

from limbeck.training import memory


def test_the_peak_of_a_process_covers_what_it_has_touched():
    touched = torch.ones(2**26, dtype=torch.uint8)  # 64 MiB
    assert memory.peak(torch.device("cpu")) > touched.nbytes


def test_a_peak_is_told_in_the_unit_that_fits():
    assert memory.told(812 * 2**20) == "812 MiB"
    assert memory.told(round(3.4 * 2**30)) == "3.4 GiB"
    assert memory.told(None) == "unknown"
