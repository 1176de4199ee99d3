"""Use of a module by someone who does not train it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call


def lend(module: nn.Module, *inputs: Any, batch_statistics: bool = False) -> Any:
    """Use a module without training it: gradients pass through to the inputs and stop before its parameters.

    Args:
        module: The module that is lent; parameters, buffers and modes are the same afterwards.
        inputs: What it is called with.
        batch_statistics: Run it in train mode, on copies of its buffers; False runs it in eval mode.

    Returns:
        What the module returns.
    """
    state = {name: p.detach() for name, p in module.named_parameters()}
    state |= {name: b.clone() for name, b in module.named_buffers()}
    modes = [(part, part.training) for part in module.modules()]
    module.train(batch_statistics)
    try:
        return functional_call(module, state, inputs)
    finally:
        for part, training in modes:
            part.training = training
