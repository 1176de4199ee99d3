"""Photographs in plain colours, which are learned in seconds, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from limbeck.cli import main

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}
QUIET = ["--device", "cpu", "--quiet"]


def limbeck(*words: str | Path) -> int:
    """Run the command line in this process; returns its exit code."""
    before, sys.argv = sys.argv, ["limbeck", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def photographs(folder: Path, names: Sequence[str], *, called: Sequence[str] = (), count: int = 12,
                side: int = 16) -> Path:
    """Noisy images of some colours by class, or all of them in the folder itself where `called` holds no names.

    Args:
        folder: Created.
        names: Which of `COLOURS`.
        called: Folder of each; an empty name for none.
        count: Of each colour.
        side: In pixels.
    """
    chance = np.random.default_rng(len(str(folder.name)))
    for name, place in zip(names, called or names, strict=True):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.asarray(COLOURS[name]) + chance.integers(-30, 30, (side, side, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / place / f"{name}{i}.png")
    return folder
