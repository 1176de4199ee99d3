"""Checkpoints: everything comes back to the bit, and a damaged one is told."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from core_tiny import Plain
from torch import nn

from limbeck import ranks
from limbeck.errors import Mistake
from limbeck.training.checkpoints import load, own_state, restore_own, save

CPU = torch.device("cpu")


@pytest.fixture
def written(tmp_path):
    """A checkpoint of a module and its optimiser, and what it holds."""
    module = Plain()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    shared = {"step": 3, "best": -float("inf"), "method": module.state_dict(), "optimizer": optimizer.state_dict(),
              "companion": None, "frozen": {"teacher": "ab12"}, "names": ["a", "b"]}
    save(tmp_path / "checkpoint.pt", shared, own_state(module, CPU))
    return tmp_path / "checkpoint.pt", shared, module


def test_what_is_shared_comes_back(written):
    path, shared, _ = written
    found, _ = load(path)
    assert found.keys() == shared.keys()
    torch.testing.assert_close(found["method"], shared["method"], rtol=0, atol=0)
    torch.testing.assert_close(found["optimizer"]["state"], shared["optimizer"]["state"], rtol=0, atol=0)
    assert {key: found[key] for key in ("step", "best", "companion", "frozen", "names")} == {
        key: shared[key] for key in ("step", "best", "companion", "frozen", "names")}


def test_buffers_and_random_numbers_come_back(written):
    path, _, module = written
    statistics, other = module.stage1.norm.running_mean.clone(), Plain()
    torch.rand(7)
    _, own = load(path)
    restore_own(own, other, CPU)
    drawn = torch.rand(3)
    restore_own(own, module, CPU)
    assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(other.stage1.norm.running_mean, statistics)
    assert other.stage1.norm.num_batches_tracked == 1
    restore_own({**own, "device_random": torch.get_rng_state()}, module, CPU)  # a GPU's own is another generator's
    assert torch.equal(torch.rand(3), drawn)


def test_memories_that_are_not_in_the_state_dict_come_back(tmp_path):
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("bank", torch.zeros(3), persistent=False)

    module = Memory()
    module.bank += 2
    save(tmp_path / "c.pt", {}, own_state(module, CPU))
    module.bank += 1
    restore_own(load(tmp_path / "c.pt")[1], module, CPU)
    assert module.bank.tolist() == [2, 2, 2]


@pytest.mark.parametrize("part", [0, 1, 30, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_a_mistake(written, part):
    path = written[0]
    content = path.read_bytes()
    path.write_bytes(content[:part if isinstance(part, int) else int(part * len(content))])
    with pytest.raises(Mistake, match=r"checkpoint\.pt is damaged \(.+\) and nothing was changed\. Restore it"):
        load(path)


@pytest.mark.parametrize("content", [b"plain text\n", b"\x80\x02}q\x00.", b"(I1\nI2\nt.", bytes(range(256)),
                                     b"c__main__\nX\n."])
def test_another_file_is_a_mistake(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(Mistake, match=r"c\.pt is damaged"):
        load(tmp_path / "c.pt")


@pytest.mark.parametrize("content", [{"weight": torch.ones(1)}, torch.ones(2), [1, 2], {"ranks": 3}])
def test_a_file_of_torch_that_is_no_checkpoint_is_a_mistake(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(Mistake, match=r"c\.pt is damaged \(it is no checkpoint of a run\)"):
        load(tmp_path / "c.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"ranks": [Evil()]}, tmp_path / "c.pt")
    with pytest.raises(Mistake, match=r"c\.pt is damaged"):
        load(tmp_path / "c.pt")
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_of_other_ranks_is_a_mistake(written, monkeypatch):
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with pytest.raises(Mistake, match=r"written by 1 process\(es\); this run has 2. Resume with as many"):
        load(written[0])


def test_a_full_disk_leaves_the_last_checkpoint(written, monkeypatch):
    path, shared, module = written
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Mistake, match="the disk is full"):
        save(path, {**shared, "step": 4}, own_state(module, CPU))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["checkpoint.pt"]


def test_only_the_first_rank_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    save(tmp_path / "c.pt", {}, {})
    assert not (tmp_path / "c.pt").exists()
