"""Names any layer of any nn.Module and reads what it computed, without edits to the module.

An *address* is a module path, with `:in` for the module's input in place of its output and `#2` for its second call
in one forward pass: `layer1.2`, `fc:in`, `layer4.1.relu:in#2`. Behind it may stand what the tensor is read as: `:map`,
`:tokens` (of the patches), `:cls`, `:prefix` (see `layouts`). A *tap* is the name we give an address; canonical names
(`stem`, `stage1`..., `stage1.pre`, `pooled`) come from the network's own `taps` or from `stages.discover`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from limbeck.errors import Mistake, nearest
from limbeck.seen import Outputs
from limbeck.taps.calls import compiled, first_tensor, still
from limbeck.taps.layouts import VIEWS, Layout

_ADDRESS = re.compile(rf"^(?P<path>[^:#]*)(?P<side>:in)?(#(?P<call>[1-9]\d*))?(:(?P<view>{'|'.join(VIEWS)}))?$")


@dataclass(frozen=True)
class Address:
    """One layer's input or output at one of its calls in a forward pass, and what it is read as: as it is, if empty."""

    path: str
    side: str = "out"
    call: int = 1
    view: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `path[:in][#call][:view]`.

        Raises:
            Mistake: If the text is of another form.
        """
        found = _ADDRESS.match(text)
        if found is None:
            raise Mistake(f"a layer is named as PATH, PATH:in or PATH#2; got '{text}'. Write it in one of these forms, "
                          f"with one of {[f':{view}' for view in VIEWS]} behind it to read it as that.")
        return cls(found["path"], "in" if found["side"] else "out", int(found["call"] or 1), found["view"] or "")

    @property
    def tensor(self) -> str:
        """The address of the tensor as the layer has it: without what it is read as."""
        return f"{self.path}{':in' * (self.side == 'in')}{f'#{self.call}' * (self.call > 1)}"


class _Capture:
    """A hook that keeps one tensor of one call. A class, so that copies of a module can be rid of it."""

    def __init__(self, store: Outputs, tap: str, address: Address, layout: Layout | None):
        self.store, self.tap, self.address, self.layout = store, tap, address, layout
        self.calls = 0
        self.overwritten = False  # something later in the forward pass changes the tensor in place

    def keep(self, value: Any) -> None:
        self.calls += 1
        if self.calls == self.address.call:
            tensor = first_tensor(value)
            if tensor is not None:
                if self.layout is not None:
                    tensor = self.layout.read(tensor, self.address.view)
                self.store[self.tap] = tensor.clone() if self.overwritten else tensor

    def on_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.keep((args, kwargs))

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.keep(output)


class Reader:
    """Runs a module and returns its logits together with the chosen layers' tensors.

    The dummy input finds the shapes, and which of the tensors are overwritten in place before the pass ends: these are
    cloned from then on.

    Args:
        module: Any network. Hooks are added to it; `remove` takes them off.
        taps: Tap -> address.
        dummy: Input for the trial pass, (1, C, H, W), on the module's device.
        layouts: How tensors hold places and channels, by address: what reading one as a map takes.
        run: What is called in place of the module: the same, compiled.

    Raises:
        Mistake: If an address names no module, or one that does not run or returns no tensor, or none that can be read
            as it is asked for.
    """

    def __init__(self, module: nn.Module, taps: Mapping[str, str], dummy: Tensor, *,
                 layouts: Mapping[str, Layout] | None = None, run: Callable[[Tensor], Any] | None = None):
        self.module, self._layouts, self._run = module, layouts or {}, module if run is None else run
        self._parts = tuple(module.modules())
        self._store: Outputs = {}
        self._captures: list[_Capture] = []
        self._handles: list[RemovableHandle] = []
        modules = dict(module.named_modules())
        try:
            for tap, text in taps.items():
                address = Address.parse(text)
                if address.path not in modules:
                    raise Mistake(f"{type(module).__name__} has no layer '{address.path}'; "
                                  f"{nearest(address.path, modules)}")
                self._hook(modules[address.path], _Capture(self._store, tap, address, self._layout(address)))
            self.shapes = self._try(dummy, taps)
        except BaseException:
            self.remove()
            raise

    def _layout(self, address: Address) -> Layout | None:
        """The layout of a tensor that is to be read as something else than it is."""
        if not address.view:
            return None
        if address.tensor not in self._layouts:
            raise Mistake(f"'{address.tensor}' of {type(self.module).__name__} holds no places that the image's could "
                          f"be, so it cannot be read as {address.view}. Name a layer that returns a map or tokens.")
        return self._layouts[address.tensor]

    def _hook(self, module: nn.Module, capture: _Capture) -> None:
        register = (module.register_forward_pre_hook(capture.on_input, with_kwargs=True)
                    if capture.address.side == "in"
                    else module.register_forward_hook(capture.on_output))
        self._captures.append(capture)
        self._handles.append(register)

    def _try(self, dummy: Tensor, taps: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
        versions: dict[str, int] = {}
        with still(self.module):
            outputs = self(dummy, versions)
        dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.inplace for m in self.module.modules())
        for capture in self._captures:
            if capture.tap not in outputs:
                raise Mistake(
                    f"layer '{taps[capture.tap]}' of {type(self.module).__name__} ran {capture.calls} time(s) in a "
                    f"forward pass and gave no tensor at call {capture.address.call}; name a layer that runs in every "
                    f"pass.")
            # dropout in place overwrites in training alone, which the trial does not see
            capture.overwritten = dropout or outputs[capture.tap]._version != versions[capture.tap]
        return {tap: tuple(x.shape[1:]) for tap, x in outputs.items()}

    def __call__(self, x: Tensor, versions: dict[str, int] | None = None) -> Outputs:
        """Forward pass.

        Args:
            x: Normalised images, (N, C, H, W).
            versions: Filled with each tensor's version as it was kept, for the trial pass.

        Returns:
            Tap -> tensor, and `logits`.
        """
        self._store.clear()
        for capture in self._captures:
            capture.calls = 0
            capture.store = self._store if versions is None else _Versioned(self._store, versions)
        try:
            run = self._run if versions is None else self.module
            with _fresh_hooks() if run is not self.module or compiled(self._parts) else nullcontext():
                logits = answer(run(x))
            if logits is None:
                raise Mistake(f"{type(self.module).__name__} must return a tensor of logits; it returned none.")
            return {**self._store, "logits": logits}
        finally:
            self._store.clear()

    def remove(self) -> None:
        """Take the hooks off the module."""
        for handle in self._handles:
            handle.remove()


def answer(value: Any) -> Tensor | None:
    """The logits in what a network returned: under that name (Hugging Face), else the first tensor."""
    named = value.get("logits") if isinstance(value, Mapping) else None
    return first_tensor(value if named is None else named)


def _fresh_hooks() -> AbstractContextManager[None]:
    """Compiled code is made anew once hooks have changed; by default it does not look at them."""
    from torch._dynamo import config

    patched: AbstractContextManager[None] = config.patch(skip_nnmodule_hook_guards=False)
    return patched


class _Versioned(dict[str, Tensor]):
    """A store that notes each tensor's version, so that later in-place changes show."""

    def __init__(self, store: Outputs, versions: dict[str, int]):
        super().__init__()
        self._store, self._versions = store, versions

    def __setitem__(self, tap: str, tensor: Tensor) -> None:
        self._store[tap] = tensor
        self._versions[tap] = tensor._version


def clean_copy(module: nn.Module) -> nn.Module:
    """A deep copy without our hooks: what is deployed."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "__self__", None), _Capture):
                    del hooks[key]
    return twin
