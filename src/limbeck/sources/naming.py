"""Whose class is whose: the classes that a network knows, brought to those of the data by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.config import read_yaml
from limbeck.errors import Mistake, nearest

BY_ORDER = "by-order"
"""What `teacher.classes` says where names differ and the order is the same."""

Names = tuple[str, ...]
"""What one class is called: by one name, or by several (`n01440764`; `tench, Tinca tinca`; `tench`)."""

_SHOWN = 6


@dataclass(frozen=True)
class Matched:
    """Which of a network's classes each class of the data is.

    Attributes:
        places: For each class of the data, its place among the network's; None where these are the same.
        note: What was matched, to be shown; None where names and order are the same.
    """

    places: tuple[int, ...] | None = None
    note: str | None = None


def match_classes(whose: str, own: Sequence[Names], wanted: Sequence[str],
                  given: Mapping[str, str] | str | None = None) -> Matched:
    """Find each class of the data among those of a network, by name.

    Names that differ in upper and lower case, or in spaces, `_` and `-` alone, are the same where no class has the
    exact one.

    Args:
        whose: What messages call the network.
        own: The names of each of its classes, in its order.
        wanted: The data's classes, in their order.
        given: Data's name -> network's name, for those that differ; a YAML file of such lines; or `BY_ORDER`.

    Raises:
        Mistake: If a class of the data is not among the network's, or two of them are the same one there.
    """
    if given == BY_ORDER:
        return _by_order(whose, own, wanted)
    called = {name: name for name in wanted} | _read(given)
    stray = [name for name in called if name not in wanted]
    if stray:
        raise Mistake(f"classes of {whose} are given for the data's names; '{stray[0]}' is none of these, "
                      f"{nearest(stray[0], wanted)}")
    exact, alike = _places(own, str), _places(own, _plain)
    found = {name: exact.get(theirs, alike.get(_plain(theirs), -1)) for name, theirs in called.items()}
    missing = {name: called[name] for name, place in found.items() if place < 0}
    if missing:
        raise Mistake(_asking(whose, own, missing, len(wanted)))
    taken: dict[int, str] = {}
    for name, place in found.items():
        if place in taken:
            raise Mistake(f"every class of the data needs one of its own at {whose}; '{taken[place]}' and '{name}' are "
                          f"both its '{own[place][0]}'. Give each another one in its `classes`.")
        taken[place] = name
    same = list(found.values()) == list(range(len(own)))
    note = None if same and all(name in own[place] for name, place in found.items()) else _note(whose, own, found)
    return Matched(None if same else tuple(found.values()), note)


def _by_order(whose: str, own: Sequence[Names], wanted: Sequence[str]) -> Matched:
    if len(own) != len(wanted):
        raise Mistake(f"classes={BY_ORDER} needs as many classes on both sides; {whose} knows {len(own)} and the data "
                      f"has {len(wanted)}. Say which is which: classes={{data's name: its name}}.")
    return Matched(None, f"{whose}: its classes are taken for the data's in their order, whatever their names.")


def _read(given: Mapping[str, str] | str | None) -> dict[str, str]:
    found = {} if given is None else read_yaml(Path(given)) if isinstance(given, str) else given
    return {str(name): str(theirs) for name, theirs in found.items()}


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign not in " _-")


def _places(own: Sequence[Names], form: Callable[[str], str]) -> dict[str, int]:
    """Name -> class, without the names that several classes have (`crane`, a bird and a machine)."""
    places: dict[str, set[int]] = {}
    for place, names in enumerate(own):
        for name in names:
            places.setdefault(form(name), set()).add(place)
    return {name: min(those) for name, those in places.items() if len(those) == 1}


def _asking(whose: str, own: Sequence[Names], missing: Mapping[str, str], count: int) -> str:
    known = [name for names in own for name in names]
    shown = "; ".join(f"'{theirs}', {nearest(theirs, known)}" for theirs in list(missing.values())[:_SHOWN])
    more = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return (f"every class of the data is needed among those of {whose}; of {count}, {len(missing)} are not there by "
            f"name: {shown}{more}. Say which is which with its setting `classes`, for example --set "
            f"'teacher.classes={{{next(iter(missing))}: its name}}', with a YAML file of such lines, or with "
            f"teacher.classes={BY_ORDER} if their order is the same.")


def _note(whose: str, own: Sequence[Names], found: Mapping[str, int]) -> str:
    changed = [f"'{name}' is its class {place}" + ("" if name in own[place] else f", '{own[place][0]}'")
               for here, (name, place) in enumerate(found.items()) if place != here or name not in own[place]]
    shown = "; ".join(changed[:_SHOWN]) + (f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
    what = (f"has the data's {len(own)} classes in another order or under other names" if len(found) == len(own) else
            f"knows {len(own)} classes, of which the data has {len(found)}: its other answers are left out")
    return f"{whose} {what}; matched by name: {shown or 'each is where it was'}."
