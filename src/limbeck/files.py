"""Files are written beside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limbeck.errors import Mistake


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; what was there before stays until the new one is safely on disk.

    Raises:
        Mistake: If the disk is full or the folder cannot be written.
    """
    with written_beside(path, content):
        pass


@contextmanager
def written_beside(path: Path, content: bytes | str) -> Iterator[Path]:
    """Write a file whole under another name, to be looked at; it is renamed at the end unless something is raised.

    Raises:
        Mistake: If the disk is full or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        yield beside
        with _written(path):
            beside.replace(path)
    finally:
        with suppress(OSError):  # renamed, or never there
            beside.unlink()


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


def cache_folder() -> Path:
    """Where limbeck remembers what can be computed again: $LIMBECK_CACHE, or ~/.cache/limbeck."""
    return Path(os.environ.get("LIMBECK_CACHE") or Path.home() / ".cache" / "limbeck")


def unwritable(path: Path, error: OSError) -> Mistake:
    """What to tell someone whose disk is full or whose folder is closed."""
    why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
    return Mistake(f"{path} could not be written: {why}. What was there before is unharmed. "
                   f"Make room or choose another folder, then run the same command again: it goes on where it was.")
