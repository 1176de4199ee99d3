"""Two processes: one launch for all methods, through the one loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catalogue import ROWS, Row
from clipping import ROW, Clipped, clipped, connectors
from torch import nn

from limbeck.contract.running import ranks_agree
from limbeck.contract.trial import Fit, TwoRanks

_PLAIN = {"norm": nn.Identity}
_ALONE = [ROWS[0], ROWS[1]]  # per-sample losses: without batch norm, two ranks give one process's result


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    fits = [Fit(row, search) for row in ROWS for search in {False, row.searchable}]
    fits += [Clipped(ROW), *(Fit(row, student=_PLAIN) for row in _ALONE)]
    return TwoRanks(fits, tmp_path_factory.mktemp("ranks")).states()


def test_ranks_agree_on_every_parameter_and_weight(two_ranks: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    assert len(two_ranks[0]) == len(ROWS) + sum(row.searchable for row in ROWS) + len(_ALONE) + 1
    ranks_agree(*two_ranks)


@pytest.mark.parametrize("row", _ALONE, ids=lambda row: row.label)
def test_two_ranks_give_one_process_result(row: Row, two_ranks: list, tmp_path: Path) -> None:
    fit = Fit(row, student=_PLAIN)
    for name, value in fit.state(tmp_path).items():
        torch.testing.assert_close(two_ranks[0][fit.label][name], value, rtol=1e-4, atol=1e-6)


def test_a_pathway_that_is_never_computed_never_moves(two_ranks: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    method = clipped()
    names, before = method.searchable(), connectors(dict(method.named_parameters()))
    after = connectors(two_ranks[0]["clipped"])
    assert {n for n in names if not all(map(torch.equal, after[n], before[n]))} == set(names[1:])
