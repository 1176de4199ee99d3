"""Several heads on one trunk: what follows a layer of a network, once more, with weights of its own.

The network itself stays whole: it is the trunk and the first branch, and ships under its own keys. Every further branch
is a member that reads the network's layer live, so that the trunk runs once and all branches train it.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature

import torch
from torch import fx, nn

from limbeck.errors import Mistake
from limbeck.members import Member, Network
from limbeck.seen import Outputs, Seen
from limbeck.taps import Address, Reader


class Branch(Member):
    """What follows a layer of a network, untrained, fed with that layer live.

    Attributes:
        stages: The network's stages among the taps.
        auxiliary: The network's auxiliary outputs that lie behind the layer, computed anew.

    Args:
        network: Trunk and first branch.
        read: Address of the layer's tensor.
        layer: The network's tap or module address behind which the branch begins.
        seed: Of the branch's weights.
        taps: Taps of the network behind that layer which are read of this branch too.

    Raises:
        Mistake: If the network cannot be parted there, or it is not known how to build another one.
    """

    answers = True

    def __init__(self, network: Network, read: str, layer: str, *, seed: int, taps: Sequence[str] = ()):
        super().__init__()
        self.reads, self.stages = (read,), tuple(stage for stage in network.stages if stage in taps)
        heads = {tap: network.resolve(tap) for tap in network.auxiliary}
        self.module = after(network.fresh(seed).module, network.resolve(layer), name=network.name,
                            heads=list(heads.values()))
        layers = dict(self.module.named_modules())
        self.auxiliary = {tap: network.auxiliary[tap] for tap, path in heads.items() if path in layers}
        dummy = torch.zeros(1, *network.shape(layer))
        wanted = {tap: network.resolve(tap) for tap in (*taps, *self.auxiliary)}
        self._reader = Reader(self.module, wanted, dummy, layouts=network.found.layouts)
        self.in_place = dummy._version > 0  # it overwrites what it is given, which others read too

    def shape(self, tap: str) -> tuple[int, ...]:
        """Shape of a tap without the batch dimension."""
        return self._reader.shapes[tap]

    def forward(self, seen: Seen) -> Outputs:
        x = seen[self.reads[0]]
        return self._reader(x.clone() if self.in_place else x)


def branch_point(network: Network, layer: str | None) -> str:
    """The layer behind which branches begin, as it is: the one given, or the stage before the last.

    Raises:
        Mistake: If none is given and there is one stage.
    """
    if layer is None and len(network.stages) < 2:
        raise Mistake(f"branches begin behind the stage before the last; {network.name} has {list(network.stages)}. "
                      f"Name a layer in `split`; `limbeck taps` shows them.")
    return network.as_it_is(layer or network.stages[-2])


def after(module: nn.Module, address: str, *, name: str = "", heads: Sequence[str] = ()) -> fx.GraphModule:
    """What a network does behind a layer, as a module from that layer's tensor to the logits.

    Only the forward passes of what contains the layer are traced; every other module runs as it is. The result holds
    the network's own layers under their own names. The network is left in train mode.

    Args:
        module: Any network.
        address: The layer: `PATH`, `PATH:in` or `PATH#2`.
        name: What messages call the network.
        heads: Modules that are to run although the logits do not hang on them, where they hang on the layer alone.

    Raises:
        Mistake: If its forward pass cannot be traced, does otherwise in evaluation than its layers say, or leads past
            the layer.
    """
    name, layer = name or type(module).__name__, Address.parse(address)
    graph = _traced(module, layer, name)
    cut = _node(graph, layer, name)
    needed = _needed([node for node in graph.nodes if node.op == "output"], cut)
    if any(node.op == "placeholder" for node in needed):
        order = list(graph.nodes)
        early = [node for node in order[:order.index(cut)] if node in needed and node.op != "get_attr"]
        past = [str(node.target) for node in early if any(user in needed and user not in early for user in node.users)]
        raise Mistake(f"branches begin behind a layer that all else passes through; {', '.join(past)} of {name} is "
                      f"read behind '{address}' too. Name another layer in `split`: the end of a stage.")
    for head in (node for node in graph.nodes if node.op == "call_module" and node.target in heads):
        own = _needed([head], cut)
        needed |= set() if any(node.op == "placeholder" for node in own) else own
    rest = fx.Graph()
    copies = {cut: rest.placeholder("x")}
    for node in graph.nodes:
        if node in needed:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, rest, class_name=type(module).__name__)


class _Around(fx.Tracer):
    """Looks only into modules that contain a layer."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self.path.startswith(f"{module_qualified_name}.")


def _traced(module: nn.Module, layer: Address, name: str) -> fx.Graph:
    further = {p.name: p.default for p in signature(module.forward).parameters.values() if p.default is not p.empty}
    try:
        resting, graph = (_Around(layer.path).trace(module.train(mode), further) for mode in (False, True))
    except Exception as problem:
        raise Mistake(f"branches take a forward pass whose course does not hang on the images; that of {name} cannot "
                      f"be traced: {problem}. Write it without if or for over tensors and their sizes, and "
                      f"`x.shape[0]` for `len(x)`; or choose a form of the method with separate networks.") from None
    if str(resting) != str(graph):
        raise Mistake(f"branches take a network that leaves it to its layers what differs between training and "
                      f"evaluation; the forward pass of {name} asks for self.training. Use nn.Dropout for F.dropout.")
    return graph


def _node(graph: fx.Graph, layer: Address, name: str) -> fx.Node:
    """What gives the layer's tensor."""
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == layer.path]
    if len(calls) < layer.call:
        raise Mistake(f"branches begin behind a layer that runs; '{layer.path}' of {name} ran {len(calls)} time(s) and "
                      f"is asked for at call {layer.call}. Name another layer in `split`.")
    call = calls[layer.call - 1]
    given = call.args[0] if layer.side == "in" else call
    assert isinstance(given, fx.Node)
    return given


def _needed(ends: Sequence[fx.Node], cut: fx.Node) -> set[fx.Node]:
    """Everything that these hang on, other than through the cut."""
    needed: set[fx.Node] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node is not cut and node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    return needed
