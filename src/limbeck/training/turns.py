"""One turn of a step: forward, weigh, backward, step; in several pieces of the batch where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.method import Method, Step, Turn
from limbeck.optimizer_parts import Optimizers, step_turn
from limbeck.seen import Batch, Outputs, Seen
from limbeck.training.profiling import Profile


@dataclass(frozen=True)
class Turns:
    """Takes the turns of a method.

    Attributes:
        method: Whose turns they are.
        wrapped: The method as it is called in training.
        optimizer: Steps every owner.
        accelerator: Makes the backward pass.
        autocast: The context that members run in.
        clip_gradients: Largest norm of all gradients together.
        pieces: In how many pieces a step's batch is computed, one after the other; gradients add up to those of the
            whole, where losses are means over images and no batch norm sees the batch.
        profile: What watches the parts.
    """

    method: Method
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer | Optimizers
    accelerator: Accelerator
    autocast: Callable[[], AbstractContextManager]
    clip_gradients: float | None
    pieces: int
    profile: Profile

    def take(self, turn: Turn, step: Step, *, aliased: bool) -> dict[str, Tensor]:
        """Forward, backward and step of a turn's terms; leaves what it saw and found in `step`.

        Returns:
            Each term's value and their weighted `total`; empty where no term of the turn is active.
        """
        process = self.method.process
        active = process.active(step.clock) & turn.terms
        step.weights = process.weights(step.clock).to(step.batch.images.device, non_blocking=True)
        step.losses, totals, kept = {}, [], []
        for piece, share, last in pieces(step.batch, self.pieces):
            step.seen = self.method.see(piece, step.clock, aliased=aliased)
            with self.autocast():
                losses = self.wrapped(step.seen, active)
            if losses:
                totals.append(self._weighed(losses, step.weights) * share)
                self._backward(totals[-1], first=len(totals) == 1, last=last)
            for name, loss in losses.items():
                own = loss.detach() * share if self.pieces > 1 else loss
                step.losses[name] = step.losses[name] + own if name in step.losses else own
            kept.append(self._remembered(step.seen) if self.pieces > 1 else {})
        if self.pieces > 1:
            step.seen = self._together(step, kept)
        if not totals:
            return {}
        self._keep_owners(turn)
        with self.profile.part("optimiser"):
            if self.clip_gradients is not None:
                torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.clip_gradients)
            step_turn(self.optimizer, turn.optimizer)
        return {**step.losses, "total": torch.stack([total.detach() for total in totals]).sum()}

    def _weighed(self, losses: dict[str, Tensor], weights: Tensor) -> Tensor:
        names = self.method.process.names
        if tuple(losses) != names:
            places = torch.tensor([names.index(name) for name in losses])
            weights = weights[places.to(weights.device, non_blocking=True)]
        return (weights * torch.stack(list(losses.values()))).sum()

    def _backward(self, total: Tensor, *, first: bool, last: bool) -> None:
        """Add a piece's gradients to the earlier pieces'; ranks exchange them with the last."""
        if first:
            self.optimizer.zero_grad(set_to_none=True)
        with self.profile.part("backward"), nullcontext() if last else self.accelerator.no_sync(self.wrapped):
            self.accelerator.backward(total)

    def _keep_owners(self, turn: Turn) -> None:
        """Drop the gradients of those whom this turn does not step."""
        for group in self.optimizer.param_groups:
            if turn.owners is not None and group["owner"] not in turn.owners:
                for parameter in group["params"]:
                    parameter.grad = None

    def _remembered(self, seen: Seen) -> dict[str, Tensor]:
        """What is kept of a piece: all that those read who update averages or memories from it, by address."""
        found = {}
        for address in self.method.remembered():
            name, _, tap = address.partition(".")
            outputs = seen.computed([name]).get(name, {})
            if tap in outputs:
                found[address] = outputs[tap]
        return found

    def _together(self, step: Step, kept: list[dict[str, Tensor]]) -> Seen:
        """The step's `Seen`, as if it had been computed whole, of what was kept."""
        known: dict[str, Outputs] = {}
        for address in kept[0]:
            name, _, tap = address.partition(".")
            known.setdefault(name, {})[tap] = torch.cat([piece[address] for piece in kept])
        return self.method.see(step.batch, step.clock, known=known)


def pieces(batch: Batch, count: int) -> Iterator[tuple[Batch, float, bool]]:
    """A batch in so many parts of nearly one size, in order; each one's share of the images, whether it is the last.

    A batch with fewer images than `count` comes in fewer parts.
    """
    if count == 1:
        yield batch, 1.0, True
        return
    places = torch.arange(len(batch)).chunk(count)
    for number, rows in enumerate(places):
        yield batch.cut(slice(int(rows[0]), int(rows[-1]) + 1)), len(rows) / len(batch), number == len(places) - 1
