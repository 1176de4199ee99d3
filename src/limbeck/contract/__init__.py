"""What must hold for every method, one's own loss included: small checks that `limbeck check` and the tests share.

A check takes a `Trial`, a method on tiny networks, and raises `Broken` with what it found and what to do; a check of a
claim raises `NotClaimed` where the loss claims nothing. All of it runs on the CPU.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from limbeck import places, wiring
from limbeck.contract.claims import claims_of, never_negative, same_when_repeated, zero_or_least_at_equality
from limbeck.contract.hard import compiles, finite_at_extremes, steps_in_bf16
from limbeck.contract.running import ranks_agree, resumes
from limbeck.contract.searching import can_search, search_moves_the_weights, slopes_are_exact
from limbeck.contract.steps import Broken, NotClaimed
from limbeck.contract.trial import Fit, Trial, stages
from limbeck.contract.values import (
    every_parameter_has_one_owner,
    gradients_reach_whom_they_say,
    inactive_terms_cost_nothing,
    loss_falls,
    one_backward_is_many,
    student_is_clean,
    terms_are_scalars,
)

Check = Callable[[Trial], None]

CHECKS: dict[str, Check] = {
    "gradients reach whom they should": gradients_reach_whom_they_say,
    "one backward does for all terms": one_backward_is_many,
    "every parameter has one owner": every_parameter_has_one_owner,
    "inactive terms cost nothing": inactive_terms_cost_nothing,
    "finite at extremes": finite_at_extremes,
    "bf16 autocast": steps_in_bf16,
    "torch.compile agrees": compiles,
    "the loss falls": loss_falls,
    "the student ships clean": student_is_clean,
    "stops and resumes": resumes,
}
"""What holds for every method whose terms are scalars."""

SEARCH_CHECKS: dict[str, Check] = {
    "search slopes are exact": slopes_are_exact,
    "a search moves the weights": search_moves_the_weights,
}
"""What holds for every method that `can_search`."""

CLAIMS: dict[str, Check] = {
    "zero or least at equality": zero_or_least_at_equality,
    "never negative": never_negative,
    "same when the batch repeats": same_when_repeated,
}
"""What holds where a loss claims it."""


@dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
        check: What was looked at.
        state: Whether it holds.
        found: What was found where it does not.
        advice: What to do then.
    """

    check: str
    state: Literal["holds", "broken", "not claimed"]
    found: str = ""
    advice: str = ""

    def __str__(self) -> str:
        if self.state == "not claimed":
            return f"  -   {self.check} (not claimed)"
        mark = "  ok  " if self.state == "holds" else "FAIL  "
        return mark + self.check + (f": {self.found}\n      {self.advice}" if self.found else "")


def findings(methods: Sequence[str], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that the contract says of some methods, as it is found out; two ranks at the end, in one launch.

    Where a method's terms are no scalars, nothing else of it is looked at: all would say the same.

    Args:
        methods: Their names, or places: `mine.py:cosine`.
        options: Of a single method.

    Raises:
        Mistake: If there is no such method, or it cannot be built with these options.
    """
    sound: list[Trial] = []
    for trial in [trial for method in methods for trial in _trials(method, dict(options))]:
        where = f"{trial.label}: " if len(methods) > 1 or trial.stage else ""
        for finding in _of(trial):
            yield replace(finding, check=where + finding.check)
            if finding.state == "broken" and finding.check == _FIRST:
                break
        else:
            sound.append(trial)
    if sound:
        yield _found("two ranks agree", lambda: _on_two_ranks(sound))


_FIRST = "terms are scalars"


def _trials(method: str, options: dict[str, Any]) -> list[Trial]:
    """A trial of each of a method's stages."""
    needed = [role for part in wiring.parts_of(method) for role, optional in wiring.networks_of(part).items()
              if not optional]
    further: dict[str, tuple[int, ...]] = {role: (10,) for role in needed}
    own_loss = places.is_place(method) and "+" not in method
    first = Trial(method, options, {"": frozenset({"student"})} if own_loss else {}, further=further)
    return [replace(first, stage=stage) for stage in range(len(stages(first)))]


def _of(trial: Trial) -> Iterator[Finding]:
    yield _found(_FIRST, lambda: terms_are_scalars(trial))
    if wiring.needs_teacher(trial.method):
        for what, networks in (("a CNN teaches a ViT", ("vit", "cnn")), ("a ViT teaches a CNN", ("cnn", "vit"))):
            yield _found(what, partial(terms_are_scalars, replace(trial, networks=networks)))
    checks = CHECKS | (CLAIMS if claims_of(trial) else {}) | (SEARCH_CHECKS if can_search(trial) else {})
    for name, check in checks.items():
        yield _found(name, partial(check, trial))


def _found(name: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except NotClaimed:
        return Finding(name, "not claimed")
    except Broken as broken:
        return Finding(name, "broken", broken.found, broken.advice)
    except Exception as error:
        told = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return Finding(name, "broken", f"{told} ({_place(error)})", "See that line.")
    return Finding(name, "holds")


def _place(error: Exception) -> str:
    """The line that the error came from; of one's own code rather than of a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _on_two_ranks(trials: Sequence[Trial]) -> None:
    fits = [Fit(trial, search) for trial in trials for search in (False, True) if not search or can_search(trial)]
    with tempfile.TemporaryDirectory() as folder:
        ranks_agree(fits, Path(folder))
