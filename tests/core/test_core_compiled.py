"""Taps survive torch.compile: the same outputs, tapped tensors and gradients, and layers named later are read too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from core_tiny import Residual, Tokens, batch, clock, network
from torch import Tensor, nn

from limbeck.members import Network
from limbeck.seen import Outputs, Seen
from limbeck.taps import clean_copy

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo's own, of what it is given

TAPS = {Residual: ["stage1", "stage2.pre", "layer1.0.bn1", "layer2.0.relu#2", "pooled"],
        Tokens: ["stage1", "cls", "tokens", "blocks.2:prefix", "pooled"]}
WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "handed over": lambda module: torch.compile(module, backend="aot_eager"),
    "in place": lambda module: module.compile(backend="aot_eager") or module,
    "in part": lambda module: [part.compile(backend="aot_eager") for part in module.children()] and module}


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def looked(member: Network, taps: list[str]) -> tuple[Outputs, dict[str, Tensor]]:
    """What is tapped in training, and the parameters' gradients of all of it together."""
    member.train().tap(taps)
    outputs = member(Seen(batch(), clock(), {}))
    member.zero_grad()
    sum(outputs[tap].square().mean() for tap in sorted(outputs)).backward()
    return outputs, {name: p.grad for name, p in member.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "way"), [
    (Tokens, "in place"), *(pytest.param(kind, way, marks=pytest.mark.slow) for kind in TAPS for way in WAYS
                            if (kind, way) != (Tokens, "in place"))])
def test_outputs_taps_and_gradients_are_the_same(kind: type[nn.Module], way: str) -> None:
    module = kind()
    plain, compiled = network(copy.deepcopy(module)), network(WAYS[way](module))
    for taps in (TAPS[kind][:2], TAPS[kind]):  # some are named once it has been compiled
        (expected, slopes), (outputs, own) = looked(plain, taps), looked(compiled, taps)
        assert outputs.keys() == expected.keys() == {*taps, "logits"}
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(own, slopes)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_the_compiled_code_is_what_runs() -> None:
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    member = network(torch.compile(Residual(), backend=count))
    member.tap(["stage1", "stage2"])
    assert graphs == []  # the trial passes are not compiled
    for _ in range(3):
        member.train().read(batch().images)
    assert len(graphs) == 1


def test_what_ships_is_plain_and_a_twin_is_not_tied_to_the_compiled_one() -> None:
    module = Residual()
    member = network(torch.compile(module, backend="aot_eager"), factory=Residual)
    member.tap(["stage1"])
    shipped, images = member.eval().deployed(), torch.rand(2, 3, 16, 16)
    assert type(shipped) is Residual
    torch.testing.assert_close(shipped(member.normalise(images)), member.logits(images))
    assert not any(part._forward_hooks for part in clean_copy(member.module).modules())
    assert member.fingerprint() == network(module).fingerprint()
    twin = copy.deepcopy(member)
    with torch.no_grad():
        twin.module.fc.bias.add_(1)
    torch.testing.assert_close(twin.logits(images), member.logits(images) + 1)
