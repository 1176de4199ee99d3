"""Activations computed a second time for the backward pass instead of kept: less memory, a third more time.

Within blocks nothing is kept but their input. Taps inside them stay live tensors; dropout draws the same numbers again;
batch norm updates its running statistics the first time only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Within it these modules, none inside another, keep their input alone when they are called."""
    for block in blocks:
        block.forward = partial(_twice, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _twice(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block), **named)


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first pass, and around the second."""
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms leave their running statistics, and the count of batches, as they are.

    They still take them, with momentum 0, as the second pass must save the tensors that the first one saved.
    """
    norms = [(m, m.momentum, m.num_batches_tracked) for m in block.modules()
             if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm, *_ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in norms:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def outermost(module: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """The modules at these paths, without those that are not there or lie inside another of them."""
    there = dict(module.named_modules())
    chosen = [path for path in dict.fromkeys(paths) if path in there and path]
    return [there[path] for path in chosen if not any(path.startswith(f"{other}.") for other in chosen)]
