"""Activations computed again: the same losses, gradients, taps, dropout and running statistics, and less kept."""

from __future__ import annotations

import copy

import pytest
import torch
from core_tiny import Plain, Residual, batch, network
from torch import Tensor, nn

from limbeck.members import Network


def stepped(one: Network, *, recompute: bool, taps: tuple[str, ...]) -> tuple[list[Tensor], Network, int]:
    """Outputs and gradients of a pass, the network after it, and the bytes that autograd kept of it."""
    one = copy.deepcopy(one)
    one.tap(taps)
    one.train().recompute(recompute)
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = one.read(batch(images=4).images)
        loss = sum(x.square().mean() for x in outputs.values())
    loss.backward()
    return [*outputs.values(), *(p.grad for p in one.parameters())], one, sum(kept.values())


@pytest.mark.parametrize("module", [lambda: Plain(dropout=0.5), Residual])
def test_nothing_changes_but_what_is_kept(module):
    torch.manual_seed(0)
    one = network(module())
    taps = ("stage1", "stage2", *([] if isinstance(one.module, Residual) else ["stage1.pre", "stage2.norm"]))
    plain, own, much = stepped(one, recompute=False, taps=taps)
    again, other, little = stepped(one, recompute=True, taps=taps)
    for x, y in zip(plain, again, strict=True):
        assert torch.equal(x, y)
    for (name, x), y in zip(own.module.named_buffers(), other.module.buffers(), strict=True):
        assert torch.equal(x, y), name
    assert little < 0.7 * much


def test_blocks_run_twice_in_training_and_once_otherwise():
    one, calls = network(Plain()), []
    one.recompute(True)
    one.module.stage1.conv.register_forward_hook(lambda *_: calls.append(1))
    one.train().read(batch().images)["logits"].sum().backward()
    assert len(calls) == 2
    one.eval().read(batch().images)
    one.train()
    with torch.no_grad():
        one.read(batch().images)
    assert len(calls) == 4


def test_the_network_stays_as_it_was():
    one = network(Plain())
    one.recompute(True)
    one.train().read(batch().images)
    assert all("forward" not in part.__dict__ for part in one.modules())
    assert isinstance(one.deployed(), nn.Module)


def test_running_statistics_move_once():
    one = network(Plain())
    one.recompute(True)
    one.train().read(batch().images)["logits"].sum().backward()
    assert int(one.module.stage1.norm.num_batches_tracked) == 1
    assert one.module.stage1.norm.track_running_stats
