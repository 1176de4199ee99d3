"""From settings to a method: its function found, its options checked against the signature, its process put over it."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from limbeck.config import Job, MethodSettings, ProcessSettings, ScheduleSettings, validated
from limbeck.errors import Mistake, nearest
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods import METHODS
from limbeck.process import Learned, Replayed
from limbeck.recorded import Recorded

_GIVEN = ("student", "teacher", "setting")


def function(name: str) -> Callable[..., Method]:
    """The function that builds a method.

    Raises:
        Mistake: If there is no method of the name.
    """
    if name not in METHODS:
        raise Mistake(f"there is no method '{name}'; {nearest(name, METHODS)}")
    file = METHODS[name].partition(":")[0]
    found: Callable[..., Method] = getattr(importlib.import_module(f"limbeck.methods.{file}"), name)
    return found


def needs_teacher(name: str) -> bool:
    """Whether a method asks for a teacher."""
    return "teacher" in inspect.signature(function(name)).parameters


def options(settings: MethodSettings) -> dict[str, Any]:
    """A method's options, checked and converted by its function's annotations.

    Raises:
        Mistake: With all that is wrong at once.
    """
    build = function(settings.name)
    hints = typing.get_type_hints(build)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default)
        for name, parameter in inspect.signature(build).parameters.items() if name not in _GIVEN}
    model: type[BaseModel] = create_model(f"method.{settings.name}", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        chosen = validated(model, settings.options)
    except Mistake as mistake:
        raise Mistake(str(mistake).replace("the settings do", f"the options of method {settings.name} do", 1)) from None
    return {name: getattr(chosen, name) for name in settings.options}


def build_method(settings: MethodSettings, student: Network, teacher: Network | None, setting: Setting) -> Method:
    """The method on these networks."""
    given: dict[str, Any] = {"student": student, "teacher": teacher, "setting": setting}
    asked = inspect.signature(function(settings.name)).parameters
    return function(settings.name)(**{k: v for k, v in given.items() if k in asked}, **options(settings))


def under_search(method: Method, job: Job) -> Method:
    """The method with the weights of all its searchable terms to be learned."""
    return method.under(Learned(
        method.process, method.searchable(), normalise=job.process.normaliser, scale=job.process.scale,
        start=job.search.start, threshold=job.process.threshold if job.search.clip else None,
        refresh=job.search.refresh))


def under_replay(method: Method, settings: ProcessSettings, recorded: Recorded | None,
                 schedule: ScheduleSettings) -> tuple[Method, str | None]:
    """The method under a recorded process, or its terms equally weighted where none is given.

    Returns:
        The method, and what did not match, if anything.

    Raises:
        Mistake: If the file's terms and the method's are not the same and `unmatched` is `refuse`, or none is shared.
    """
    names = method.searchable()
    recorded = recorded or Recorded.uniform(names, settings.normaliser)
    missing = [name for name in names if name not in recorded.names]
    unknown = [name for name in recorded.names if name not in names]
    note = None
    if missing or unknown:
        note = (f"the process and the method do not share all terms; only in the process: {unknown or 'none'}; only in the "
                f"method: {missing or 'none'}")
        if settings.unmatched == "refuse" or len(missing) == len(names):
            raise Mistake(f"{note}. Search on networks with the same stages and transforms, or set process.unmatched=drop "
                          f"to leave these terms out.")
    replayed = Replayed(method.process, recorded, absent=missing, use=settings.use, scale=settings.scale,
                        interpolate=settings.interpolate, granularity=settings.granularity, threshold=settings.threshold,
                        clip=settings.clip, warp=_warp(settings, recorded, schedule))
    return method.under(replayed), note


def _warp(settings: ProcessSettings, recorded: Recorded, schedule: ScheduleSettings) -> Sequence[tuple[float, float]] | None:
    """Rate drops of this run onto those of the search, for `warp: drops`."""
    if settings.warp == "straight":
        return None
    theirs = recorded.found.get("drops") or []
    if schedule.kind != "steps" or len(theirs) != len(schedule.drops):
        raise Mistake(f"process.warp=drops needs as many rate drops in this run as in the search; this run has "
                      f"{schedule.drops if schedule.kind == 'steps' else 'none'}, the search had {theirs}. Set "
                      f"schedule.drops, or process.warp=straight.")
    return [(0.0, 0.0), *zip(schedule.drops, theirs, strict=True), (1.0, 1.0)]
