"""The one exception for what a user can mend, and how a wrong name finds its nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Mistake(ValueError):  # noqa: N818 - it names whose it is, which "Error" would not
    """Something the user can mend. Its message says what is needed, what was given, and what to do.

    The command line prints the message alone and exits with 2; anything else is a bug and keeps its traceback.
    """


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A run was asked to stop, and wrote a checkpoint first. Its message says how to go on."""


def nearest(name: str, names: Iterable[str], *, most: int = 3) -> str:
    """The names most like the one given, as the end of an error message.

    Args:
        name: What was asked for.
        names: What there is.
        most: How many to offer.

    Returns:
        `closest: ['a', 'b']`, or `there is ['a', 'b', ...]` where nothing is alike.
    """
    known = list(names)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.4)
    return f"closest: {close}" if close else f"there is {known[:12]}{' and more' if len(known) > 12 else ''}"
