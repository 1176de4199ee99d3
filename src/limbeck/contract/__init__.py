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

from limbeck import wiring
from limbeck.config import NULL, assignments
from limbeck.contract.claims import claims_of, never_negative, same_when_repeated, zero_or_least_at_equality
from limbeck.contract.hard import compiles, finite_at_extremes, steps_in_bf16
from limbeck.contract.running import ranks_agree, resumes
from limbeck.contract.searching import can_search, search_moves_the_weights, slopes_are_exact
from limbeck.contract.steps import Broken, NotClaimed
from limbeck.contract.trial import TASKS, Fit, Trial, TwoRanks, quiet, stages
from limbeck.contract.values import (
    every_parameter_has_one_owner,
    gradients_reach_whom_they_say,
    inactive_terms_cost_nothing,
    loss_falls,
    one_backward_is_many,
    student_is_clean,
    terms_are_scalars,
)
from limbeck.errors import Mistake

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


def hold(methods: Sequence[str], sets: Sequence[str], say: Callable[[str], None]) -> None:
    """Look at everything and say each finding as it comes.

    Args:
        methods: Names, or places: `mine.py:cosine`.
        sets: Options, as `method.key=value`.
        say: Takes a line.

    Raises:
        Mistake: If something is broken, or cannot be built.
    """
    quiet()
    given = {key: None if value is NULL else value for key, value in assignments(sets).items()}
    stray = [key for key in given if not key.startswith("method.")]
    if stray:
        raise Mistake(f"check sets options of the method alone; got {stray[0]}. Write for example method.weight=2.")
    found = []
    for finding in findings(methods, {key.removeprefix("method."): value for key, value in given.items()}):
        found.append(finding)
        say(str(finding))
    broken = sum(finding.state == "broken" for finding in found)
    if broken:
        raise Mistake(f"{broken} of {len(found)} checks failed; what to do stands below each.")


def findings(methods: Sequence[str], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that the contract says of some methods, as it is found out.

    Where a method's terms are no scalars, nothing else of it is looked at: all would say the same. Two ranks are
    launched once, for all methods, and train while the rest is looked at.

    Args:
        methods: Their names, or places: `mine.py:cosine`.
        options: Of all of them.

    Raises:
        Mistake: If there is no such method, or it cannot be built with these options.
    """
    sound: list[Trial] = []
    trials = [trial for method in methods for trial in _trials(method, dict(options))]
    for trial in trials:
        first = _found(_named("terms are scalars", trial, trials), partial(terms_are_scalars, trial))
        yield first
        sound += [trial] * (first.state == "holds")
    if sound:
        with tempfile.TemporaryDirectory() as folder:
            fits = [Fit(trial, search) for trial in sound for search in {False, can_search(trial)}]
            ranks = TwoRanks(fits, Path(folder))
            for trial in sound:
                yield from (_found(_named(name, trial, trials), check) for name, check in _further(trial).items())
            yield _found("two ranks agree", lambda: ranks_agree(*ranks.states()))


def _named(name: str, trial: Trial, trials: Sequence[Trial]) -> str:
    return f"{trial.label}: {name}" if len(trials) > 1 else name


def _trials(method: str, options: dict[str, Any]) -> list[Trial]:
    """A trial of each of a method's stages."""
    needed = [role for part in wiring.parts_of(method) for role, optional in wiring.networks_of(part).items()
              if not optional]
    further: dict[str, tuple[int, ...]] = {role: (10,) for role in needed}
    first = _fitting(Trial(method, options, further=further))
    if claims_of(first) is not None:  # a loss of one's own has nobody else to pull
        first = replace(first, pulls={"": frozenset({"student"})})
    return [replace(first, stage=stage) for stage in range(len(stages(first)))]


def _fitting(trial: Trial) -> Trial:
    """The trial on classes, or else on the first task for which its method is made; of a student whom it takes.

    DeiT's takes transformers with a distillation token alone.

    Raises:
        Mistake: If it can be built for none, as it says on classes.
    """
    refused: list[Mistake] = []
    for task, kind in ((task, kind) for task in TASKS for kind in ("cnn", "deit")):
        fitting = replace(trial, task=task, networks=(kind, "cnn"))
        try:
            stages(fitting)
            return fitting
        except Mistake as mistake:
            refused.append(mistake)
    raise refused[0]


def _further(trial: Trial) -> Mapping[str, Callable[[], None]]:
    """What is looked at where terms are scalars."""
    around = {}
    if wiring.needs_teacher(trial.method) and trial.task == "classification" and trial.networks == ("cnn", "cnn"):
        around = {what: partial(terms_are_scalars, replace(trial, networks=networks)) for what, networks in
                  (("a CNN teaches a ViT", ("vit", "cnn")), ("a ViT teaches a CNN", ("cnn", "vit")))}
    checks = CHECKS | (CLAIMS if claims_of(trial) else {}) | (SEARCH_CHECKS if can_search(trial) else {})
    return around | {name: partial(check, trial) for name, check in checks.items()}


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
