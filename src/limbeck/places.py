"""A function of one's own, by where it is: `file.py:name` or `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from limbeck.errors import Mistake, nearest


def is_place(name: str) -> bool:
    """Whether a name says where something is, rather than what limbeck calls it."""
    return ":" in name or name.endswith(".py")


def find(name: str) -> Callable[..., Any]:
    """The function at a place.

    Raises:
        Mistake: If there is no such file, module or function, or it cannot be run; with the nearest names.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise Mistake(f"a function of one's own is file.py:name or package.module:name; got '{name}'. For example "
                      f"{name.strip(':') or 'mine.py'}:my_function")
    module = _file(Path(place).resolve(), place) if place.endswith(".py") else _module(place)
    found = getattr(module, attribute, None)
    if callable(found):
        function: Callable[..., Any] = found
        return function
    own = [n for n, value in vars(module).items() if callable(value) and inspect.getmodule(value) is module]
    raise Mistake(f"{place} has no '{attribute}' that can be called; {nearest(attribute, own)}")


@cache
def _file(path: Path, given: str) -> ModuleType:
    """A file as a module, run once; the files beside it can be imported while it runs."""
    if not path.is_file():
        beside = [near.name for near in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise Mistake(f"there is no file {given} (looked in {path.parent}); {nearest(path.name, beside)}")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(given, error) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _broken(name, error) from error


def _broken(place: str, error: Exception) -> Mistake:
    if isinstance(error, Mistake):
        return Mistake(f"{place}: {error}")
    return Mistake(f"'{place}' needs a module that can be imported: {type(error).__name__}: {error}. Run where it is, "
                   f"or install what it lacks.")
