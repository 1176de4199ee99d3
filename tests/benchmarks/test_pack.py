"""benchmarks/pack.py as it is called."""

import runpy
import sys
from pathlib import Path

import pytest

from limbeck.config import DataSettings
from limbeck.data import open_data

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pack.py"


def test_digits_are_packed_pixel_for_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pack.py", "digits", str(tmp_path / "packed"), "--size", "12"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    packed, whole = (open_data(DataSettings(source=name, size=12)) for name in (f"packed:{tmp_path}/packed", "digits"))
    assert "part-1-of-1.safetensors  0." in said
    assert packed.fingerprint in said
    assert packed.fingerprint == whole.fingerprint
    assert packed.name == "digits at 12x12"
    assert packed.augmentation == whole.augmentation
