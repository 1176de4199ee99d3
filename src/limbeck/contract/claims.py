"""What a loss of one's own claims of itself, on both sides as they are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from limbeck import places
from limbeck.contract.steps import CLOCK, Broken, NotClaimed, images_for, noise
from limbeck.contract.trial import Trial, built
from limbeck.terms import Match
from limbeck.wiring import own
from limbeck.wiring.own import Claims


def claims_of(trial: Trial) -> Claims | None:
    """What the trial's loss claims; None for methods that are no loss of one's own."""
    if not places.is_place(trial.method) or "+" in trial.method:
        return None
    found = own.declared(places.find(trial.method))
    return found.claims if found else None


def zero_or_least_at_equality(trial: Trial) -> None:
    """Where student and teacher are equal the loss is least, and 0 if it claims that."""
    claims = _claimed(trial, "minimum_at_equality")
    for name, distance, (_, source), targets in _compared(trial):
        equal = source.clone().requires_grad_()
        value = distance(equal, source, *targets)
        (slope,) = torch.autograd.grad(value, equal)
        if claims.zero_at_equality and abs(value) > 1e-6:
            raise Broken(f"{name} is {value.item():.3g} where both sides are equal",
                         "Subtract what is left there, or claim minimum_at_equality only.")
        around = [distance(equal + away * noise(equal), source, *targets) for away in (1e-3, 1e-2, 0.1)]
        if slope.abs().max() > 1e-5 or min(around) < value - 1e-9:
            raise Broken(f"{name} is not least where both sides are equal (its slope there is {slope.abs().max():.2g})",
                         "See which side is which, or drop the claim.")


def never_negative(trial: Trial) -> None:
    """The loss is never below 0."""
    _claimed(trial, "nonnegative")
    for name, distance, (student, source), targets in _compared(trial):
        pairs = [(noise(student, seed), 3 * noise(source, 10 + seed)) for seed in range(5)]
        pairs += [(source + away * noise(source), source) for away in (0, 1e-3, 0.1)]
        least = min(distance(*sides, *targets) for sides in pairs)
        if least < -1e-6:
            raise Broken(f"{name} is {least.item():.3g} on some input", "Drop the claim, or see which sign is wrong.")


def same_when_repeated(trial: Trial) -> None:
    """A batch that comes twice is worth what it is worth once."""
    _claimed(trial, "same_when_repeated")
    for name, distance, sides, targets in _compared(trial):
        once, twice = (distance(*(torch.cat([x] * times) for x in (*sides, *targets))) for times in (1, 2))
        if not torch.allclose(once, twice, rtol=1e-6, atol=1e-9):
            raise Broken(f"{name} is {once.item():.4g} on a batch and {twice.item():.4g} on the same batch twice",
                         "Average over images instead of adding them up; a loss that compares images with each other "
                         "claims same_when_repeated=False.")


def _claimed(trial: Trial, claim: str) -> Claims:
    """The claims, if this one is among them."""
    claims = claims_of(trial)
    if claims is None or not getattr(claims, claim):
        raise NotClaimed
    return claims


def _compared(trial: Trial) -> Iterator[tuple[str, Callable[..., Tensor], tuple[Tensor, Tensor], tuple[Tensor, ...]]]:
    """Every pull's name, distance, both sides as they are compared, float64, and targets where it takes them."""
    method = built(trial)
    images = images_for(method)
    seen = method.see(images, CLOCK)
    for name, term in method.terms.items():
        if isinstance(term, Match):
            with torch.no_grad():
                student, source = (x.double() for x in term.sides(seen))
            targets = (images.targets,) if term.labelled and images.targets is not None else ()
            yield name, term.distance, (student, source), targets
