"""The command line in this process, and files of one's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from limbeck.cli import main

HEAD = "import limbeck\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def limbeck(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in this process; returns its exit code."""
    def run(*words: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["limbeck", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0
    return run


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of one's own, and gives the place of a function in it."""
    def write(text: str, name: str = "own") -> str:
        (tmp_path / "mine.py").write_text(HEAD + dedent(text))
        return f"{tmp_path / 'mine.py'}:{name}"
    return write
