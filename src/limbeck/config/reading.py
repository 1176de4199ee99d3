"""Settings out of a YAML file, then flags, then `--set section.key=value`; all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from limbeck.config.settings import Job
from limbeck.errors import Mistake, nearest

_Model = TypeVar("_Model", bound=BaseModel)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML has it: there are hundreds of recipes

NULL: Any = object()
"""What `--set key=null` sets, beside None, which is what a flag is that was not given."""


def read_job(file: Path | None, flags: Mapping[str, Any], pair: str | None = None) -> Job:
    """Settings from a YAML file, then flags.

    A recipe may hold `pairs`, by name, each with settings of its own; `pair` chooses one of them.

    Args:
        file: YAML, or None.
        flags: Dotted key -> value; None is a flag that was not given, `NULL` sets to nothing.
        pair: Which of the file's pairs.

    Raises:
        Mistake: With all that is wrong at once: unknown keys (nearest names), wrong types, missing settings.
    """
    return job_of(_chosen_pair(read_yaml(file), file, pair) if file else {}, flags)


def job_of(tree: dict[str, Any], flags: Mapping[str, Any]) -> Job:
    """Settings from a tree of them, then flags; arguments and mistakes as for `read_job`."""
    for key, value in flags.items():
        if value is not None:
            _put(tree, key.split("."), None if value is NULL else value)
    return validated(Job, tree)


def validated(model: type[_Model], tree: Mapping[str, Any]) -> _Model:
    """The settings, or one `Mistake` that lists everything wrong with them."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explained(model, problem) for problem in error.errors()]
        raise Mistake("the settings do not fit:\n  " + "\n  ".join(lines)) from None


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`section.key=value` as dotted key -> value, the value read as YAML; null as `NULL`.

    Raises:
        Mistake: If a text is of another form, or its value no YAML.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Mistake(f"--set takes section.key=value; got '{text}'. For example --set method.temperature=2")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise Mistake(f"--set takes section.key=value; got '{text}', whose value is not valid YAML: "
                          f"{str(error).splitlines()[0]}. Put it in quotes to set it as text.") from None
        pairs[key.strip()] = NULL if read is None else read
    return pairs


def as_yaml(settings: BaseModel) -> str:
    """The settings as a YAML file that `read_job` reads back to the same."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def read_yaml(file: Path) -> dict[str, Any]:
    """A file's settings, not yet checked.

    Raises:
        Mistake: If there is no such file, or it is no YAML, or holds no settings.
    """
    if not file.is_file():
        raise Mistake(f"a settings file is needed; there is none at {file}. Give the path of a YAML file.")
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Mistake(f"{file} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise Mistake(f"{file} must hold settings by name (`data: digits`); it holds {type(tree).__name__}.")
    return tree


def _chosen_pair(tree: dict[str, Any], file: Path, pair: str | None) -> dict[str, Any]:
    pairs = tree.pop("pairs", None)
    if not pairs:
        if pair:
            raise Mistake(f"{file} has no pairs to choose '{pair}' from; leave --pair out.")
        return tree
    if pair is None and len(pairs) == 1:
        pair = next(iter(pairs))
    if pair not in pairs:
        raise Mistake(f"{file} needs --pair, one of {list(pairs)}; got {pair}.")
    chosen = merged(sections(tree), pairs[pair])
    _put(chosen, ["recipe", "pair"], pair)
    return chosen


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings, the second on top."""
    both = dict(tree)
    for key, value in over.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


_NAMED = {"data": "source", "student": "name", "teacher": "name", "method": "name", "cache": "folder"}


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        below = sections({key: tree.get(key)})[key]  # `teacher: resnet56`, then teacher.size=64
        tree[key] = dict(below) if isinstance(below, dict) else {}
        tree = tree[key]
    last, below = path[-1], tree.get(path[-1])
    if isinstance(below, dict) and last in _NAMED and isinstance(value, str):  # the flag names, the file's rest stays
        if last in ("student", "teacher"):
            name, _, weights = value.partition("@")
            tree[last] = {"name": name, **({"weights": weights} if weights else {})}
        else:
            tree[last] = {**below, _NAMED[last]: value}
    else:
        tree[last] = value


def sections(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree in which `teacher: NAME@WEIGHTS`, `data: digits`, `method: kd` are sections, so that others merge in."""
    written = dict(tree)
    for key, field in _NAMED.items():
        if isinstance(text := tree.get(key), str):
            name, _, weights = text.partition("@")
            split = bool(weights) and key in ("student", "teacher")
            written[key] = {"name": name, "weights": weights} if split else {field: text}
    return written


def _explained(model: type[BaseModel], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{place} is needed and was not given"
    if problem["type"] == "extra_forbidden":
        owner: Any = model
        for part in problem["loc"][:-1]:
            owner = _section(owner, str(part)) or owner
        return f"there is no setting {place}; {nearest(str(problem['loc'][-1]), owner.model_fields)}"
    if problem["type"] == "value_error":
        return f"{place}: {problem['ctx']['error']}"
    return f"{place} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _section(owner: Any, name: str) -> Any:
    """The settings class of a field, if it has one."""
    field = owner.model_fields.get(name)
    options = [field.annotation, *get_args(field.annotation)] if field is not None else []
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
