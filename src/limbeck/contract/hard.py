"""Hard input, low precision, compilation: values and gradients stay what they should be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

from limbeck.contract.steps import CLOCK, Broken, Fill, images_for, known_outputs, step
from limbeck.contract.trial import Trial, built
from limbeck.members import Network
from limbeck.seen import Seen
from limbeck.terms import Match, Term

EXTREMES: dict[str, Fill] = {
    "logits and features of ±1e4": lambda shape, noise, pulled: 1e4 * noise.sign() * (1 if pulled else -1),
    "logits and maps of zeros": lambda shape, noise, pulled: torch.zeros(shape),
    "a student of zeros": lambda shape, noise, pulled: torch.zeros(shape) if pulled else noise,
    "equal images": lambda shape, noise, pulled: noise[:1].expand(shape).clone(),
    "two equal images": lambda shape, noise, pulled: noise[[0, 0, *range(2, len(noise))]],
    "a student equal to its teacher": lambda shape, noise, pulled: torch.linspace(-1, 1, noise.numel()).view(shape),
}
"""What networks are made to give, by what it is."""


def finite_at_extremes(trial: Trial) -> None:
    """Values and gradients are finite whatever the networks give."""
    method = built(trial)
    for what, fill in EXTREMES.items():
        known = known_outputs(method, fill)
        _, losses, _ = step(method, known=known)
        leaves = [x for name in method.members for x in known.get(name, {}).values()] + list(method.parameters())
        for name, loss in losses.items():
            if not loss.isfinite():
                raise Broken(f"term {name} is {loss.item()} at {what}",
                             "Work with log_softmax instead of log(softmax), and keep what is divided by away from 0.")
            gradients = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
            if not all(g is None or g.isfinite().all() for g in gradients):
                raise Broken(f"the gradient of term {name} is not finite at {what}",
                             "Roots and norms have no slope at 0: add a small number inside, or clamp before them.")


def steps_in_bf16(trial: Trial) -> None:
    """Under bf16 autocast networks run in bf16; terms stay float32, near their full value, with finite gradients."""
    method = built(trial)
    precise, _, _ = step(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, losses, seen = step(method)
    total.backward()
    networks = [name for name, member in method.members.items() if isinstance(member, Network)]
    slow = [name for name, outputs in seen.computed([*networks, *method.frozen]).items()
            if "logits" in outputs and outputs["logits"].dtype != torch.bfloat16]
    if slow:
        raise Broken(f"{', '.join(slow)} ran in full precision under bf16: a term asked for it inside its own block "
                     f"without autocast", "Name in `reads` all that the term reads: then it is computed before.")
    rough = [name for name, loss in losses.items() if loss.dtype != torch.float32]
    if rough or not torch.allclose(total, precise, rtol=0.05, atol=0.05):
        raise Broken(f"the weighted loss is {precise.item():.4g} in full precision and {total.item():.4g} under bf16"
                     + (f"; {', '.join(rough)} are not float32" if rough else ""),
                     "Compute the distance in float32: `Match` does, a Term of one's own must leave autocast.")
    if not all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None):
        raise Broken("a gradient is not finite under bf16", "Compute the distance in float32.")


def compiles(trial: Trial) -> None:
    """A distance or term of each kind gives the same values and gradients when it is compiled (aot_eager)."""
    method = built(trial)
    known = known_outputs(method, lambda shape, noise, pulled: noise)
    leaves = [x for name in method.members for x in known.get(name, {}).values()]
    kinds = {_kind(term): name for name, term in method.terms.items() if name in method.process.active(CLOCK)}
    try:
        for name in kinds.values():
            function, given = _call(method.terms[name], method.see(images_for(method), CLOCK, known=known))
            plain = _value_and_slopes(function, given, leaves)
            with torch._functorch.config.patch(donated_buffer=False):  # graphs that give buffers away run back but once
                ahead = _value_and_slopes(torch.compile(function, backend="aot_eager"), given, leaves)
            if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(plain, ahead, strict=True)):
                raise Broken(f"term {name} is {plain[0].item():.6g}, and {ahead[0].item():.6g} compiled, or their "
                             f"gradients differ", "Keep it a function of its arguments, without global state.")
    finally:
        torch._dynamo.reset()


def _value_and_slopes(function: Callable[..., Tensor], given: Sequence[Any], leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # dynamo looks at .grad of what members computed
        value = function(*given)
    slopes = torch.autograd.grad(value, leaves + _live(given), retain_graph=True, allow_unused=True)
    return [value, *(slope for slope in slopes if slope is not None)]


def _kind(term: Term) -> tuple[Any, ...]:
    distance = getattr(term, "distance", None)
    return type(term), getattr(distance, "func", distance)


def _call(term: Term, seen: Seen) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    """A term's distance and what it is called with, cut from the graph; the whole term where it is no plain `Match`."""
    if not isinstance(term, Match) or term.task is not None:
        return term, (seen,)
    return term.distance, (*map(_cut, term.sides(seen)), *([seen.batch.targets] if term.labelled else []))


def _cut(side: Any) -> Any:
    return tuple(map(_cut, side)) if isinstance(side, tuple) else side.detach().requires_grad_(side.requires_grad)


def _live(given: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments that take gradients."""
    flat = [x for side in given for x in (side if isinstance(side, tuple) else (side,))]
    return [x for x in flat if isinstance(x, Tensor) and x.requires_grad]
