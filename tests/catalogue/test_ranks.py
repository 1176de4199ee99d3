"""Two processes: one launch for all methods, through the one loop."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from catalogue import ROWS, Row, built, trainer
from torch import nn

_ALONE = [ROWS[0], ROWS[1]]  # per-sample losses: without batch norm, two ranks give one process's result


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _rank(rank: int, port: int, folder: Path) -> None:
    import os

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo")
    results = {}
    for row in ROWS:
        for search in (False, True):
            if not (search and row.method == "none"):
                results[f"{row.label}/{search}"] = _trained(row, folder / f"{row.label}-{search}", search=search)
    for row in _ALONE:
        results[f"{row.label}/plain"] = _trained(row, folder / f"{row.label}-plain", norm=nn.Identity)
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def _trained(row: Row, folder: Path, *, search: bool = False, **student: object) -> dict[str, torch.Tensor]:
    run = trainer(built(row, **student), folder, epochs=1, images=24, search=search)
    run.fit()
    state = {name: p.detach().clone() for name, p in run.method.named_parameters()}
    if search:
        state["raw"] = run.method.process.raw.clone()
    return state | {name: b.clone() for name, b in run.method.named_buffers() if "running" in name and "members" in name}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (_port(), folder), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_ranks_agree_on_every_parameter_and_weight(two_ranks: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    one, other = two_ranks
    assert len(one) == 2 * len(ROWS) - 1 + len(_ALONE)
    for label, state in one.items():
        for name, value in state.items():
            assert torch.equal(value, other[label][name]), f"{label}: {name}"


@pytest.mark.parametrize("row", _ALONE, ids=lambda row: row.label)
def test_two_ranks_give_one_process_result(row: Row, two_ranks: list, tmp_path: Path) -> None:
    alone = _trained(row, tmp_path, norm=nn.Identity)
    for name, value in alone.items():
        torch.testing.assert_close(two_ranks[0][f"{row.label}/plain"][name], value, rtol=1e-4, atol=1e-6)
