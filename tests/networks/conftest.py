"""How the tests of this folder read a network's taps: by hooks, without the project's own reader."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

Read = Callable[[nn.Module, Tensor], dict[str, Tensor]]


@pytest.fixture
def read() -> Read:
    """Runs a network once and returns what stood at each of its taps, and its `logits`."""

    def run(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        hooks = []
        for tap, address in network.taps.items():
            path, _, side = address.partition(":")

            def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, tap: str = tap,
                     side: str = side) -> None:
                assert tap not in seen, f"{tap} ran twice"
                seen[tap] = inputs[0] if side == "in" else output

            hooks.append(network.get_submodule(path).register_forward_hook(keep))
        with torch.no_grad():
            seen["logits"] = network(images)
        for hook in hooks:
            hook.remove()
        return seen

    return run
