"""The process file: what a search recorded, and how it was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.files import write_whole

_FORMAT = "limbeck-process-1"


@dataclass(frozen=True)
class Recorded:
    """A process as a search found it.

    Attributes:
        names: The searched terms.
        raw: Raw weights, a row for each recorded step, float32; (R, len(names)). Row r stands at progress r / (R - 1).
        weights: The same rows normalised (without scale and clip).
        normaliser: Name of the normaliser that the search used.
        scale: Factor on the normalised weights that the search used.
        fixed: Terms of the searched method that carried no searched weight.
        found: How: data, networks, seed, commit, settings.
    """

    names: tuple[str, ...]
    raw: Tensor
    weights: Tensor
    normaliser: str
    scale: float
    fixed: tuple[str, ...] = ()
    found: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the process file: safetensors, with a JSON header under the key `limbeck`."""
        header = {"format": _FORMAT, "names": self.names, "normaliser": self.normaliser, "scale": self.scale,
                  "fixed": self.fixed, "found": dict(self.found)}
        tensors = {"raw": self.raw.float().contiguous(), "weights": self.weights.float().contiguous()}
        write_whole(path, save(tensors, {"limbeck": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """Read a process file.

        Raises:
            Mistake: If there is no such file, or it is no process file or a truncated one.
        """
        if not path.is_file():
            raise Mistake(f"a process file is needed; there is none at {path}. "
                          f"Make one with `limbeck search`, which writes RUN/process.safetensors.")
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {}).get("limbeck", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError) as error:
            raise Mistake(f"{path} cannot be read as a process file ({error}). "
                          f"Search again, or copy it again.") from None
        if not isinstance(header, dict) or header.get("format") != _FORMAT or {"raw", "weights"} - tensors.keys():
            raise Mistake(f"{path} is not a process file of this version ({_FORMAT}). "
                          f"Give the process.safetensors of a search run.")
        return cls(tuple(header["names"]), tensors["raw"], tensors["weights"], header["normaliser"], header["scale"],
                   tuple(header["fixed"]), header["found"])

    @classmethod
    def uniform(cls, names: Sequence[str], normaliser: str, *, fixed: Sequence[str] = ()) -> Recorded:
        """One row of ones: every term alike throughout; `fixed` ones as the method has them."""
        ones = torch.ones(1, len(names))
        return cls(tuple(names), ones, ones / len(names), normaliser, float(len(names)), tuple(fixed))
