"""From settings to a method: its function found, its options checked against the signature, blended with others."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from limbeck import places
from limbeck.config import MethodSettings, validated
from limbeck.errors import Mistake, nearest
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods import METHODS
from limbeck.tasks import Task
from limbeck.wiring import own
from limbeck.wiring.blending import blend, names

_ROLES = ("student", "teacher", "setting")
_SEPARATOR = "+"


def function(name: str) -> Callable[..., Method | list[Stage]]:
    """The function that builds a method: limbeck's by its name, one's own by its place (`mine.py:cosine`).

    Raises:
        Mistake: If there is no method of the name.
    """
    if places.is_place(name):
        return own.method(name)
    if name not in METHODS:
        raise Mistake(f"there is no method '{name}'; {nearest(name, METHODS)}")
    file = METHODS[name].partition(":")[0]
    found: Callable[..., Method | list[Stage]] = getattr(importlib.import_module(f"limbeck.methods.{file}"), name)
    return found


def parts_of(name: str) -> list[str]:
    """The methods in `kd+at`."""
    return name.split(_SEPARATOR)


def needs_teacher(name: str) -> bool:
    """Whether a method, or any part of a blend, asks for a teacher."""
    return any(_needs_teacher(function(part)) for part in parts_of(name))


def _needs_teacher(build: Callable[..., Method | list[Stage]]) -> bool:
    optional = type(None) in typing.get_args(typing.get_type_hints(build).get("teacher"))
    return "teacher" in inspect.signature(build).parameters and not optional


def networks_of(name: str) -> dict[str, bool]:
    """Further networks that a method takes, by its name for them, and whether it can do without."""
    build = function(name)
    hints = typing.get_type_hints(build)
    return {role: parameter.default is not inspect.Parameter.empty
            for role, parameter in inspect.signature(build).parameters.items()
            if role not in _ROLES and hints[role] in (Network, Sequence[Network])}


def options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options, checked and converted by its function's annotations.

    Raises:
        Mistake: With all that is wrong at once.
    """
    build = function(name)
    hints, networks = typing.get_type_hints(build), networks_of(name)
    fields: dict[str, Any] = {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(build).parameters.items() if key not in _ROLES and key not in networks}
    model: type[BaseModel] = create_model(f"method.{name}", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        chosen = validated(model, given)
    except Mistake as mistake:
        raise Mistake(str(mistake).replace("the settings do", f"the options of method {name} do", 1)) from None
    return {key: getattr(chosen, key) for key in given}


def own_options(settings: MethodSettings) -> dict[str, dict[str, Any]]:
    """Each method's checked options: `method.temperature` of a method alone, `method.kd.temperature` in a blend.

    Raises:
        Mistake: For an unknown method or option.
    """
    names = parts_of(settings.name)
    if len(names) == 1:
        return {names[0]: options(names[0], settings.options)}
    for name in names:
        function(name)
    called = [own.short(name) for name in names]
    if len(set(called)) < len(called):
        raise Mistake(f"every method of a blend needs a name of its own; got {called}. Rename one of the functions.")
    stray = [key for key in settings.options if key not in called]
    if stray:
        raise Mistake(f"options of a blend belong to one of its methods; got method.{stray[0]}. Write for example "
                      f"method.{called[0]}.{stray[0]}; the methods are {called}.")
    return {name: options(name, settings.options.get(own.short(name), {})) for name in names}


def build_stages(settings: MethodSettings, student: Network, teacher: Network | None, setting: Setting,
                 further: Mapping[str, Sequence[Network]] | None = None) -> list[Stage]:
    """What the method trains, one stage after the other; a method that gives no stages is one stage.

    Args:
        settings: Its name and options.
        student: The network that learns.
        teacher: The network that teaches, where the method asks for one.
        setting: The job.
        further: Networks beside these two, by the method's name for them.

    Raises:
        Mistake: If a network is missing or one too many, or methods do not blend.
    """
    built = {name: _built(name, chosen, student, teacher, setting, further or {})
             for name, chosen in own_options(settings).items()}
    staged = {own.short(name): one if isinstance(one, list) else [Stage(one)] for name, one in built.items()}
    _check_views(staged, setting.task)
    if len(staged) == 1:
        return next(iter(staged.values()))
    for name, stages in staged.items():
        if len(stages) > 1 or stages[0].length != 1 or stages[0].schedule is not None:
            raise Mistake(f"a blend has one stage, as long as the run; {name} trains several one after the other, or "
                          f"one with a length or rate of its own. Choose its joint form.")
    methods = {name: stage.method for name, (stage,) in staged.items()}
    called = names(methods)
    optimizers = {called[name].get(member, member): settings for name, (stage,) in staged.items()
                  for member, settings in stage.optimizers.items()}
    return [Stage(blend(methods), optimizers=optimizers)]


def _check_views(staged: Mapping[str, Sequence[Stage]], task: Task) -> None:
    """Refuse further views of images whose targets are maps: these lie over the images alone."""
    for name, stages in staged.items():
        if task.name != "classification" and any(stage.method.views for stage in stages):
            raise Mistake(f"{name} looks at further views of each image, cut and turned anew; the targets of "
                          f"{task.name} lie pixel by pixel over the image itself. Choose a method, or a form of it, "
                          f"that looks at the images alone.")


def _built(name: str, chosen: Mapping[str, Any], student: Network, teacher: Network | None, setting: Setting,
           further: Mapping[str, Sequence[Network]]) -> Method | list[Stage]:
    given: dict[str, Any] = {"student": student, "teacher": teacher, "setting": setting}
    asked, hints = inspect.signature(function(name)).parameters, typing.get_type_hints(function(name))
    for role, optional in networks_of(name).items():
        networks = further.get(role, ())
        if not networks and not optional:
            raise Mistake(f"method {name} needs networks.{role}; none was given. Give for example "
                          f"--set networks.{role}=[resnet20].")
        if networks:
            given[role] = networks[0] if hints[role] is Network else list(networks)
    return function(name)(**{k: v for k, v in given.items() if k in asked}, **chosen)
