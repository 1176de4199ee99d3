"""What is stored of one view of one image: a row of bytes, all rows of a cache alike.

Logits are stored in full, or as their k largest and what is left to the rest:
    p = softmax(z / T);  stored: the k largest log p_i, their classes as integers, and log(1 - sum p_i);
    recovered (`smooth`): those p_i, and (1 - sum p_i) / (C - k) for each other class;
    recovered (`renorm`): p_i / sum p_i, and nothing for the others.
What is read is z' = T log p of the recovered p, so that any method that takes a softmax of logits can read it; at other
temperatures than T the rest is spread less exactly. Feature maps are stored in full.

Source: Shen & Xing, A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022, arXiv:2112.01528:
marginal smoothing and marginal re-normalisation with top-k. There the p themselves are kept, beside classes in the same
type. We keep logarithms, as in half precision a p near 1 would leave nothing to the rest, and classes as integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from limbeck.config import CacheSettings
from limbeck.errors import Mistake
from limbeck.seen import Outputs

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bf16": torch.bfloat16}
_INTEGERS = (torch.uint8, torch.int16, torch.int32)
_NOTHING = -1e4  # log p of a class that is left none; finite, as losses multiply it by p = 0
_ALIGN = 4       # bytes that rows are padded to, so that any field can be looked at in its own type


@dataclass(frozen=True)
class Row:
    """How outputs become bytes, and come back.

    Attributes:
        shapes: Tap -> its shape for one image, in the order in which they lie.
        precision: `float32`, `float16` or `bf16`, of all that is no integer.
        top_k: How many logits are kept; None keeps all.
        tail: What classes beyond these get: `smooth` or `renorm`.
        temperature: T of the distribution that is kept.
    """

    shapes: Mapping[str, tuple[int, ...]]
    precision: str = "float16"
    top_k: int | None = None
    tail: str = "smooth"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        shape = self.shapes.get("logits", (0,))
        if self.top_k is not None and (len(shape) > 1 or not 0 < self.top_k < shape[0]):
            raise Mistake(f"cache.top_k keeps some of the logits that a network has of an image; got {self.top_k}, "
                          f"where they are {shape}. Give fewer, or leave it out to keep all.")

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], settings: CacheSettings) -> Row:
        """Rows of outputs of these shapes, as the settings ask for them."""
        return cls(dict(shapes), settings.precision, settings.top_k, settings.tail, settings.temperature)

    def described(self) -> dict[str, Any]:
        """What a cache's record says of its rows."""
        kept = {} if self.top_k is None else {"tail": self.tail, "temperature": self.temperature}
        return {"taps": {tap: list(shape) for tap, shape in self.shapes.items()}, "precision": self.precision,
                "top_k": self.top_k, **kept}

    @property
    def _type(self) -> torch.dtype:
        return _TYPES[self.precision]

    @cached_property
    def _index_type(self) -> torch.dtype:
        return next(t for t in _INTEGERS if math.prod(self.shapes["logits"]) - 1 <= torch.iinfo(t).max)

    @cached_property
    def fields(self) -> list[tuple[str, torch.dtype, int]]:
        """Tap, type and count of what lies side by side in a row; a top-k's values come before its classes."""
        found = []
        for tap, shape in self.shapes.items():
            if tap == "logits" and self.top_k is not None:
                found += [(tap, self._type, self.top_k + 1), (tap, self._index_type, self.top_k)]
            else:
                found.append((tap, self._type, math.prod(shape)))
        return found

    @cached_property
    def size(self) -> int:
        """Bytes of a row."""
        used = sum(count * dtype.itemsize for _, dtype, count in self.fields)
        return -(-used // _ALIGN) * _ALIGN

    def encode(self, outputs: Outputs) -> Tensor:
        """Outputs of N views as bytes, uint8 (N, size), on their device."""
        pieces: list[Tensor] = []
        for tap in self.shapes:
            values = outputs[tap].flatten(1).float()
            if tap == "logits" and self.top_k is not None:
                kept, classes = self._largest(values)
                pieces += [self._narrowed(kept), classes.to(self._index_type)]
            else:
                pieces.append(self._narrowed(values))
        parts = [piece.contiguous().view(torch.uint8) for piece in pieces]
        missing = self.size - sum(part.shape[1] for part in parts)
        return torch.cat([*parts, parts[0].new_zeros(len(parts[0]), missing)], 1)

    def decode(self, rows: Tensor) -> Outputs:
        """What was encoded, float32, each tap in its shape."""
        outputs: Outputs = {}
        place, classes = 0, None
        for tap, dtype, count in self.fields:
            end = place + count * dtype.itemsize
            piece, place = rows[:, place:end].clone(memory_format=torch.contiguous_format).view(dtype), end
            if dtype in _INTEGERS:
                classes = piece.long()
                outputs[tap] = self._recovered(outputs[tap], classes)
            else:
                outputs[tap] = piece.float()
        return {tap: outputs[tap].view(len(rows), *shape) for tap, shape in self.shapes.items()}

    def _narrowed(self, values: Tensor) -> Tensor:
        if self.precision == "float16":
            values = values.clamp(-torch.finfo(torch.float16).max, torch.finfo(torch.float16).max)
        return values.to(self._type)

    def _largest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest log p, then log of what the rest has together, (N, k + 1); and the classes, (N, k)."""
        assert self.top_k is not None
        logs = torch.log_softmax(logits / self.temperature, 1)
        kept, classes = logs.topk(self.top_k, 1)
        rest = logs.scatter(1, classes, -torch.inf).logsumexp(1, keepdim=True).clamp_min(_NOTHING)
        return torch.cat([kept, rest], 1), classes

    def _recovered(self, kept: Tensor, classes: Tensor) -> Tensor:
        assert self.top_k is not None
        every = math.prod(self.shapes["logits"])
        rest = kept[:, -1:] - math.log(every - self.top_k) if self.tail == "smooth" else kept.new_full((1, 1), _NOTHING)
        logs = rest.expand(len(kept), every).scatter(1, classes, kept[:, :-1])
        return self.temperature * logs


def error(logits: Tensor, recovered: Tensor, temperature: float) -> float:
    """Mean over views of KL(softmax(z / T) || softmax(z' / T)), in nats: what storing changed of a distribution."""
    full, other = (torch.log_softmax(x.double() / temperature, 1) for x in (logits, recovered))
    return float((full.exp() * (full - other)).sum(1).mean())
