"""Weights from files: the containers in which the published networks come, and loading them by name, strictly.

Nothing that comes from a file is run: pickles are read with `weights_only`, which admits tensors, plain containers and
the few harmless types that training scripts save beside them.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from limbeck.errors import Mistake

CONTAINERS = ("model", "weight", "state_dict")
"""Where the weights are in a file that holds more: RepDistiller, mdistiller and OFD; FFSD; many others."""

SCAFFOLDING = ("trans_fusion_module.",)
"""Beginnings of names that are not the network's: FFSD's leader is saved with its decoder."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by the names that the plain network has.

    Reads safetensors files (by their suffix) and files of `torch.save`: a bare state dict, or one under `model`,
    `weight` or `state_dict`. `module.` of DataParallel is taken off; of ReviewKD's student files only `student.*` is
    kept, without the prefix; FFSD's decoder is left out.

    Args:
        path: The file.

    Returns:
        Name -> tensor, on the CPU.

    Raises:
        Mistake: If there is no such file, it cannot be read, or it holds no weights.
    """
    if not path.is_file():
        raise Mistake(f"a checkpoint file is needed; there is none at {path}. Check the path.")
    held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _weights(held)
    if state is None:
        found = f"a dict with the keys {list(held)[:8]}" if isinstance(held, Mapping) else f"a {type(held).__name__}"
        raise Mistake(f"{path} should hold weights, names with tensors, bare or under one of {list(CONTAINERS)}; it "
                      f"holds {found}. Save the network's `state_dict()`.")
    return _plain_names(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network: every parameter and buffer by its name, and nothing left over.

    `num_batches_tracked` may be missing, as it is in files of very old PyTorch. The network stays as it was when the
    weights do not fit.

    Args:
        module: The network.
        state: Name -> tensor.
        source: Where the weights come from, for the message.

    Raises:
        Mistake: If names or shapes disagree.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    left_over = [name for name in state if name not in own]
    if missing or left_over:
        raise Mistake(_unmatched(missing, left_over, len(own), source))
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if wrong:
        raise Mistake(_misshapen(module, state, wrong, source))
    module.load_state_dict({name: state.get(name, own[name]) for name in own})


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise Mistake(f"{path} should be a safetensors file; it cannot be read: {error}. It may be truncated, or of "
                      "another kind under this suffix: fetch it again, or rename it.") from error


def _read_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file makes an unpickler raise is anything at all
        refused = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise Mistake(f"{path} should hold tensors and plain values only; it holds a {refused[1]}, which could run "
                          "code when it is read. Save the network's `state_dict()` alone, as tensors.") from error
        raise Mistake(f"{path} should be a file of `torch.save`; it cannot be read as one. It may be truncated or of "
                      "another kind: fetch it again, or give a .pth, .pt or .safetensors file.") from error


def _harmless() -> list:
    """Types beyond tensors that the published files hold: RepDistiller's arguments, mdistiller's NumPy accuracies."""
    number = np.float64(0).__reduce__()[0]  # NumPy's own maker of numbers; its home has moved between versions
    homes = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    return [argparse.Namespace, np.dtype, *kinds, *((number, home) for home in homes)]


def _weights(held: object) -> dict[str, Tensor] | None:
    """The state dict in what a file holds: itself, or the first under a known key; None where there is none."""
    if not isinstance(held, Mapping):
        return None
    inside = next((held[key] for key in CONTAINERS if isinstance(held.get(key), Mapping)), held)
    if not inside or not all(isinstance(x, Tensor) for x in inside.values()):
        return None
    return {str(name): x for name, x in inside.items()}


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names of the plain network."""
    if all(name.startswith("module.") for name in state):
        state = _below("module.", state)
    if all(name.startswith(("student.", "abfs.")) for name in state):
        state = _below("student.", state)
    return {name: x for name, x in state.items() if not name.startswith(SCAFFOLDING)}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in list(names)[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unmatched(missing: Collection[str], left_over: Collection[str], needed: int, source: str) -> str:
    clauses = [f"the network needs weights for its {needed} names"]
    if missing:
        clauses.append(f"{source} lacks {_some(missing)}")
    if left_over:
        clauses.append(f"{source} has {_some(left_over)}, which the network has not")
    return "; ".join(clauses) + ". Name the network that the weights were saved from."


def _misshapen(module: nn.Module, state: Mapping[str, Tensor], wrong: Iterable[str], source: str) -> str:
    own = module.state_dict()
    layers = {name.rpartition(".")[0] for name in wrong}
    layer = module.get_submodule(layers.pop()) if len(layers) == 1 else None
    name = next(iter(wrong))
    if isinstance(layer, nn.Linear) and state[name].shape[1:] == own[name].shape[1:]:
        classes = len(state[name])
        return (f"the network needs a classifier of {layer.out_features} classes; {source} has one of {classes}. "
                f"Build the network with num_classes={classes}, or give weights trained on the same classes.")
    return (f"the network needs '{name}' of shape {tuple(own[name].shape)}; {source} has {tuple(state[name].shape)}. "
            "Name the network that the weights were saved from: its kind fits, its width does not.")
