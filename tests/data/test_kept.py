"""Decoded images kept for the next run: found as long as their files are the same, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.config import DataSettings
from limbeck.data import Data, kept, open_data
from limbeck.data.images import Images


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A cache of its own that keeps everything; the list grows with each decoding."""
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WORTH", 0.0)
    real, calls = kept.decode_all, []

    def decode_all(*given: object, **more: object) -> object:
        calls.append(1)
        return real(*given, **more)

    monkeypatch.setattr(kept, "decode_all", decode_all)
    return calls


def pixels(data: Data) -> torch.Tensor:
    assert isinstance(data.train.store, Images)
    return data.train.store.pixels


def opened(folder: Path | str, **more: object) -> torch.Tensor:
    return pixels(open_data(DataSettings(source=str(folder), **more)))


def places(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "decoded").iterdir())


def test_the_next_run_finds_what_was_decoded(counted: list, photographs: Callable, tmp_path: Path) -> None:
    folder = photographs()
    first = opened(folder)
    assert len(counted) == 2  # to train on, and to score
    again = open_data(DataSettings(source=str(folder)))
    assert len(counted) == 2
    assert torch.equal(pixels(again), first)
    assert torch.equal(again.train.targets, torch.tensor([0] * 4 + [1] * 4))


def test_changing_what_was_found_changes_no_file(counted: list, photographs: Callable) -> None:
    folder = photographs()
    first = opened(folder).clone()
    opened(folder).zero_()
    assert torch.equal(opened(folder), first)


@pytest.mark.parametrize("change", ["content", "more", "time", "size", "choice"])
def test_anything_else_is_decoded_anew(change: str, counted: list, photographs: Callable) -> None:
    folder, more = photographs(), {}
    opened(folder)
    file = folder / "train" / "ant" / "0.png"
    if change == "content":
        Image.fromarray(np.full((12, 12, 3), 7, dtype=np.uint8)).save(file)
    elif change == "more":
        (folder / "train" / "ant" / "9.png").write_bytes(file.read_bytes())
    elif change == "time":
        os.utime(file, ns=(1, 1))
    else:
        more = {"size": {"size": 6}, "choice": {"per_class": 2}}[change]
    now = opened(folder, **more)
    assert len(counted) > 2
    if change == "content":
        assert (now == 7).all(dim=(1, 2, 3)).any()


def test_it_can_be_switched_off(counted: list, photographs: Callable, tmp_path: Path) -> None:
    folder = photographs()
    for _ in range(2):
        opened(folder, keep_decoded=False)
    assert len(counted) == 4
    assert not (tmp_path / "cache").exists()


def test_what_decodes_at_once_is_not_kept(counted: list, photographs: Callable, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "WORTH", 60.0)
    opened(photographs())
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_is_as_none(counted: list, photographs: Callable, tmp_path: Path) -> None:
    folder = photographs()
    first = opened(folder)
    for place in places(tmp_path):
        (place / "pixels.npy").write_bytes((place / "pixels.npy").read_bytes()[:90])
    assert torch.equal(opened(folder), first)
    assert len(counted) == 4


def test_a_closed_cache_costs_nothing_but_time(counted: list, photographs: Callable, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(opened(photographs())) == 8


def test_skipped_pictures_stay_skipped(counted: list, photographs: Callable) -> None:
    folder = photographs()
    (folder / "train" / "ant" / "1.png").write_bytes(b"no picture")
    settings = DataSettings(source=str(folder), skip_unreadable=True)
    one, other = open_data(settings), open_data(settings)
    assert one.skipped == other.skipped == 1
    assert torch.equal(one.train.targets, other.train.targets)
    assert len(counted) == 2


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "older", "oldest", ".being-written"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pixels.npy").write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age) if name[0] != "." else None)
    kept._make_room(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", ".being-written"}
    kept._make_room(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {".being-written"}


def test_the_hubs_own_files_tell_its_tables_apart(counted: list, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for name, shade in (("one", 10), ("other", 200)):
        images = [Image.fromarray(np.full((9, 9, 3), shade + i, dtype=np.uint8)) for i in range(6)]
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}).cast_column(
            "image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=["a", "b"]))
        (tmp_path / name).mkdir()
        table.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
    shades = [opened(f"hf:{tmp_path / name}").float().mean() for name in ("one", "other", "one")]
    assert shades[0] == shades[2] < 50 < shades[1]
    assert len(counted) == 4
