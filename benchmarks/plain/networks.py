"""A network that also returns what its stages computed, as those of the published benchmarks do."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WithFeatures(nn.Module):
    """A residual network for small images; its calls return stages before and after their last ReLU, and the pooled.

    Args:
        network: Has `layer1`, `layer2`, ..., the last module of each being a block with `relu_last`; or WRN's.
        before: Paths of modules whose inputs are the stages' maps before the activation.
        after: Paths of modules whose outputs are the stages' maps.
        classifier: Path of the last linear layer.
    """

    def __init__(self, network: nn.Module, before: list[str], after: list[str], classifier: str):
        super().__init__()
        self.network, self.seen = network, dict[str, Tensor]()
        self.before, self.after = before, after
        for path in before:
            network.get_submodule(path).register_forward_pre_hook(self._note(f"{path}:in"))
        for path in after:
            network.get_submodule(path).register_forward_hook(self._note(path))
        network.get_submodule(classifier).register_forward_pre_hook(self._note("pooled"))

    def _note(self, name: str):
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
            self.seen[name] = inputs[0] if output is None else output
        return note

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """Logits, maps before the activations, maps after them, the pooled feature."""
        logits = self.network(x)
        return (logits, [self.seen[f"{path}:in"] for path in self.before], [self.seen[path] for path in self.after],
                self.seen["pooled"])


def with_features(network: nn.Module) -> WithFeatures:
    """The zoo's network, wrapped where its own list of taps says."""
    stages = [tap for tap in network.taps if tap.startswith("stage") and tap[5:].isdigit()]
    before = [network.taps[f"{stage}.pre"].removesuffix(":in") for stage in stages]
    return WithFeatures(network, before, [network.taps[stage] for stage in stages],
                        network.taps["pooled"].removesuffix(":in"))


def sgd(*modules: nn.Module) -> torch.optim.SGD:
    """The benchmarks' optimiser over everything that learns; the rate is tiny, so that a long timing cannot diverge."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.SGD(parameters, lr=1e-5, momentum=0.9, weight_decay=5e-4)
