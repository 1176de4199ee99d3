"""What a network does with one dummy batch: every call of every module, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One call of one module in the dummy pass.

    Attributes:
        path: Of the module.
        count: Which of its calls, from 1.
        module: The module.
        shape: Of the tensor that it returned.
        output: Identity of that tensor.
        given_shape: Of the tensor that it was given; empty where there was none.
        given: Identity of that tensor.
        leaf: Whether it has no modules inside.
    """

    path: str
    count: int
    module: nn.Module
    shape: tuple[int, ...]
    output: int
    given_shape: tuple[int, ...]
    given: int
    leaf: bool

    @property
    def address(self) -> str:
        """Of what it returned."""
        return self.path + self._number

    @property
    def given_address(self) -> str:
        """Of what it was given."""
        return f"{self.path}:in{self._number}"

    @property
    def _number(self) -> str:
        return "" if self.count == 1 else f"#{self.count}"

    @property
    def spatial(self) -> bool:
        """Maps or tokens of the one image, with more than one position."""
        images, *shape = self.shape or (0,)
        return images == 1 and ((len(shape) == 3 and shape[1] * shape[2] > 1) or (len(shape) == 2 and shape[0] > 1))


def record(module: nn.Module, dummy: Tensor) -> list[Call]:
    """Every call that returned a tensor, in the order in which calls ended.

    Args:
        module: Any network; it is left as it was.
        dummy: Input, (1, C, H, W), on the module's device.
    """
    calls: list[Call] = []
    kept: list[Any] = []  # alive until the end, so that identities are not reused
    counts: dict[str, int] = {}

    def hook(path: str) -> Callable[..., None]:
        def after(m: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            tensor, given = first_tensor(output), first_tensor((args, kwargs))
            if tensor is not None:
                kept.extend((tensor, given))
                counts[path] = counts.get(path, 0) + 1
                leaf = next(m.children(), None) is None
                calls.append(Call(path, counts[path], m, tuple(tensor.shape), id(tensor),
                                  () if given is None else tuple(given.shape), id(given), leaf))
        return after

    handles = [m.register_forward_hook(hook(path), with_kwargs=True) for path, m in module.named_modules() if path]
    try:
        with still(module):
            module(dummy)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in what a module returned: itself, or inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((t for t in map(first_tensor, children) if t is not None), None)


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Run a module for its shapes alone: eval mode, no gradient, not compiled; every layer's mode is put back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), as_written(m for m, _ in modes):
            yield
    finally:
        for m, training in modes:
            m.training = training


def as_written(parts: Iterable[nn.Module]) -> AbstractContextManager[object]:
    """Within it modules run as they are written, also if any of these is compiled."""
    return torch.compiler.set_stance("force_eager") if compiled(parts) else nullcontext()


def compiled(parts: Iterable[nn.Module]) -> bool:
    """Whether any of these modules runs through torch.compile."""
    return any(part._compiled_call_impl is not None for part in parts)
