"""Published layouts of image data: Tiny-ImageNet's, ImageNet's, and lists of classes in general."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.config import DataSettings
from limbeck.data import Data, open_data
from limbeck.errors import Mistake

CODES = ("n01443537", "n02058221")


def save(paths: Iterable[Path], side: int = 8) -> None:
    chance = np.random.default_rng(0)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """tiny-imagenet-200 as it is published, with two classes of three images."""
    folder = tmp_path / "tiny-imagenet-200"
    save(folder / "train" / code / "images" / f"{code}_{i}.JPEG" for code in CODES for i in range(3))
    save(folder / "val" / "images" / f"val_{i}.JPEG" for i in range(4))
    save(folder / "test" / "images" / f"test_{i}.JPEG" for i in range(2))
    for code in CODES:
        (folder / "train" / code / f"{code}_boxes.txt").write_text(f"{code}_0.JPEG\t0\t0\t63\t63\n")
    lines = [f"val_{i}.JPEG\t{CODES[i % 2]}\t0\t32\t44\t62" for i in range(4)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(CODES)))
    (folder / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn02058221\talbatross, mollymawk\n")
    return folder


def opened(folder: Path) -> Data:
    return open_data(DataSettings(source=str(folder)))


def test_tiny_imagenet_as_published(tiny: Path) -> None:
    data = opened(tiny)
    assert data.classes == CODES
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert data.notes == (f"{tiny} has no labelled test split: its split 'val' is scored",)


def test_imagenet_with_validation_images_by_class(tmp_path: Path) -> None:
    save(tmp_path / part / code / f"{i}.JPEG" for part in ("train", "val") for code in CODES for i in range(2))
    data = opened(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (CODES, 4, 4)


@pytest.mark.parametrize("place", ["LOC_val_solution.csv", "val.txt", "val/labels.tsv"])
def test_imagenet_with_validation_images_in_one_folder_and_a_list(place: str, tmp_path: Path) -> None:
    save(tmp_path / "train" / code / f"{i}.JPEG" for code in CODES for i in range(2))
    save(tmp_path / "val" / f"ILSVRC2012_val_0000000{i}.JPEG" for i in range(3))
    (tmp_path / place).write_text("ImageId,PredictionString\n" + "".join(
        f"ILSVRC2012_val_0000000{i},{CODES[i > 0]} 85 1 499 272\n" for i in (2, 0, 1)))
    data = opened(tmp_path)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1, 1]


def test_a_list_lacks_an_image_or_names_another_class(tiny: Path) -> None:
    file = tiny / "val" / "val_annotations.txt"
    text = file.read_text()
    file.write_text(text.replace("val_2.JPEG", "val_9.JPEG"))
    with pytest.raises(Mistake, match=r"val_annotations.txt lacks 1 of 4 images of 'val', as val_2"):
        opened(tiny)
    file.write_text(text.replace("n02058221", "n09999999"))
    with pytest.raises(Mistake, match=r"also has \['n09999999'\]"):
        opened(tiny)


def test_without_a_list_images_in_one_folder_are_not_scored(tiny: Path) -> None:
    (tiny / "val" / "val_annotations.txt").unlink()
    assert "a fixed fifth of each class" in opened(tiny).notes[0]


def test_hidden_folders_are_passed_over(tmp_path: Path, photographs: Callable[..., Path]) -> None:
    folder = photographs(test=None)
    save([folder / ".thumbs" / "x.png", folder / "ant" / ".thumbs" / "x.png"])
    assert len(opened(folder).train) + len(opened(folder).test) == 8
