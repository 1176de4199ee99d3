"""Files are written beside and renamed: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from limbeck.errors import Mistake


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all; what was there before stays until the new one is safely on disk.

    Raises:
        Mistake: If the disk is full or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):  # renamed, or never there
            beside.unlink()


def cache_folder() -> Path:
    """Where limbeck remembers what can be computed again: $LIMBECK_CACHE, or ~/.cache/limbeck."""
    return Path(os.environ.get("LIMBECK_CACHE") or Path.home() / ".cache" / "limbeck")


def unwritable(path: Path, error: OSError) -> Mistake:
    """What to tell someone whose disk is full or whose folder is closed."""
    why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
    return Mistake(f"{path} could not be written: {why}. What was there before is unharmed. "
                   f"Make room or choose another folder, then run the same command again: it goes on where it was.")
