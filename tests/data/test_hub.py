"""Hub data sets, from small parquet files: columns and splits are found by what they hold."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.config import DataSettings
from limbeck.data import Batches, Data, open_data
from limbeck.errors import Mistake

NAMES = datasets.ClassLabel(names=["ant", "bee", "cow"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` unpacks what it reads; not into the cache of whoever runs the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def pictures(n: int) -> list[dict[str, bytes]]:
    """Grey images of growing brightness."""
    contents = []
    for i in range(n):
        stream = io.BytesIO()
        Image.new("L", (8, 8), 10 * i).save(stream, "PNG")
        contents.append({"bytes": stream.getvalue()})
    return contents


def write(folder: Path, split: str, features: dict[str, Any] | None = None, n: int = 6,
          **columns: Sequence[Any]) -> Path:
    """A parquet file with a column `image`, and these."""
    folder.mkdir(exist_ok=True)
    types = datasets.Features({"image": datasets.Image(), **(features or {})})
    table = datasets.Dataset.from_dict({"image": pictures(n), **columns}, features=types)
    table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def opened(folder: Path, **settings: Any) -> Data:
    return open_data(DataSettings(source=f"hf:{folder}", **settings))


def brightness(data: Data) -> list[int]:
    return [round(float(image.mean() * 255)) for batch in Batches(data.train, 4, train=False).epoch()
            for image in batch.images]


def labels(data: Data) -> list[int]:
    assert data.train.labels is not None
    return data.train.labels.tolist()


@pytest.mark.parametrize("bare", [True, False])
def test_a_folder_of_parquet_files(tmp_path: Path, bare: bool) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, label=[0, 1, 2, 2, 1, 0])
    write(folder, "test", {"label": NAMES}, n=3, label=[2, 2, 0])
    data = open_data(DataSettings(source=str(folder) if bare else f"hf:{folder}"))
    assert (data.classes, len(data.train), len(data.test), data.notes) == (("ant", "bee", "cow"), 6, 3, ())
    assert labels(data) == [0, 1, 2, 2, 1, 0]
    assert brightness(data) == [0, 10, 20, 30, 40, 50]
    assert data.image_size == (8, 8)


def test_bars_are_for_terminals_and_left_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, label=[0, 1, 2] * 2)
    datasets.enable_progress_bars()
    try:
        opened(folder)
        assert "split" not in capfd.readouterr().err
        assert not datasets.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()


def test_parts_are_chosen_before_they_are_decoded(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, label=[2, 1, 0, 0, 1, 0])
    write(folder, "test", {"label": NAMES}, label=[2, 1, 0, 0, 1, 0])
    data = opened(folder, classes=2, per_class=2)
    assert data.classes == ("ant", "bee")
    assert (labels(data), brightness(data)) == ([1, 0, 0, 1], [10, 20, 30, 40])
    assert len(data.test) == 5


def test_without_a_test_split_validation_is_scored(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, label=[0, 1, 2, 2, 1, 0])
    write(folder, "validation", {"label": NAMES}, n=2, label=[1, 2])
    data = opened(folder)
    assert len(data.test) == 2
    assert data.notes == (f"hf:{folder} has no labelled test split: its split 'validation' is scored",)
    write(folder, "test", {"label": NAMES}, n=4, label=[-1] * 4)  # as ImageNet's: its labels are kept secret
    assert len(opened(folder).test) == 2


def test_with_one_split_a_fifth_is_cut_off(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, n=10, label=[0, 1] * 5)
    data = opened(folder)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.notes == (f"hf:{folder} has no split to score: a fixed fifth of each class, 2 of 10 images, was cut "
                          "off for it",)


def test_whole_numbers_are_classes_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"kind": datasets.Value("int32")}, kind=[7, 3, 7, 3, 10, 10])
    write(folder, "test", {"kind": datasets.Value("int32")}, n=2, kind=[10, 7])
    data = opened(folder)
    assert data.classes == ("3", "7", "10")
    assert labels(data) == [1, 0, 1, 0, 2, 2]


def test_words_are_classes_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"kind": datasets.Value("string")}, kind=["b", "a", "b", "a", "b", "a"])
    assert opened(folder).classes == ()
    assert opened(folder, label_column="kind").classes == ("a", "b")


def test_without_a_label_column_images_are_unlabelled(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "set", "train", {"width": datasets.Value("float32")}, width=[1.0] * 6))
    assert (data.classes, data.train.labels, data.test.labels) == ((), None, None)


def test_unlabelled_images_can_be_scored_on_labelled_ones(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": datasets.Value("int64")}, label=[-1] * 6)
    write(folder, "test", {"label": datasets.Value("int64")}, n=3, label=[5, 5, 2])
    data = opened(folder)
    assert data.train.labels is None
    assert data.test.labels is not None
    assert (data.classes, data.test.labels.tolist()) == (("2", "5"), [1, 1, 0])


def test_several_columns_need_a_choice(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"fine": NAMES, "coarse": NAMES, "other": datasets.Image()},
                   fine=[0, 1, 2, 2, 1, 0], coarse=[0, 0, 0, 1, 1, 1], other=pictures(6)[::-1])
    with pytest.raises(Mistake, match=r"where several fit; found \['image', 'other'\]\. Set image_column"):
        opened(folder)
    with pytest.raises(Mistake, match=r"where several fit; found \['fine', 'coarse'\]\. Set label_column"):
        opened(folder, image_column="image")
    data = opened(folder, image_column="other", label_column="coarse", in_memory=True, per_class=1)
    assert labels(data) == [0, 1]
    with pytest.raises(Mistake, match=r"must name a fitting column; there is no 'fin', closest: \['fine'\]"):
        opened(folder, image_column="image", label_column="fin")


def test_the_column_named_label_is_preferred_to_other_numbers(tmp_path: Path) -> None:
    whole = datasets.Value("int64")
    folder = write(tmp_path / "set", "train", {"id": whole, "label": whole}, id=list(range(6)), label=[0, 1] * 3)
    assert labels(opened(folder, per_class=2)) == [0, 1, 0, 1]
    with pytest.raises(Mistake, match=r"in column 'id' each of 6 training images has its own value\. Set label_column"):
        opened(folder, label_column="id")


def test_a_data_set_has_images(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict({"label": [0, 1]}).to_parquet(str(tmp_path / "set" / "train.parquet"))
    with pytest.raises(Mistake, match=r"needs a column of type Image; this one has .*label.*Choose another data set"):
        opened(tmp_path / "set")


def test_a_data_set_has_a_training_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "test", {"label": NAMES}, label=[0, 1] * 3)
    write(folder, "validation", {"label": NAMES}, label=[0, 1] * 3)
    with pytest.raises(Mistake, match=r"needs a split train or training; .* has \['test', 'validation'\]\. Choose"):
        opened(folder)


def test_some_missing_labels_are_a_mistake(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, label=[0, 1, None, 2, -1, 0])
    with pytest.raises(Mistake, match=r"2 of 6 images of split 'train' have none in column 'label'. Filter them out"):
        opened(folder)


def test_labels_that_training_does_not_know(tmp_path: Path) -> None:
    whole = {"label": datasets.Value("int64")}
    folder = write(tmp_path / "set", "train", whole, label=[0, 1] * 3)
    write(folder, "test", whole, label=[0, 1, 9, 1, 0, 9])
    with pytest.raises(Mistake, match=r"classes of test must be among those of train; there are also \[9\]\. Mend"):
        opened(folder)


@pytest.mark.parametrize("content", [{"bytes": b"no image", "path": None}, None])
def test_an_unreadable_row_is_named_or_left_out(tmp_path: Path, content: Any) -> None:
    (tmp_path / "set").mkdir()
    types = datasets.Features({"image": datasets.Image(decode=False), "label": NAMES})
    images = pictures(12)
    images[5] = content
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 2] * 4}, features=types)
    table.cast_column("image", datasets.Image()).to_parquet(str(tmp_path / "set" / "train.parquet"))
    write(tmp_path / "set", "test", {"label": NAMES}, label=[0, 1] * 3)
    with pytest.raises(Mistake, match=r"row 5 of split 'train' is not \(UnidentifiedImageError"):
        opened(tmp_path / "set")
    data = opened(tmp_path / "set", skip_unreadable=True)
    assert (data.skipped, len(data.train)) == (1, 11)
    assert labels(data) == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2]
    streamed = opened(tmp_path / "set", skip_unreadable=True, in_memory=False)
    assert (streamed.skipped, labels(streamed)) == (1, labels(data))
    assert brightness(streamed) == brightness(data)


def test_images_that_are_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "own.png")
    types = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": [str(tmp_path / "own.png")] * 5}, features=types)
    table.to_parquet(str(tmp_path / "set" / "train.parquet"))
    assert brightness(opened(tmp_path / "set")) == [9] * 4


def test_what_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("the hub does not answer")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(Mistake, match=r"'owner/none' could not be opened \(ConnectionError: the hub does not answer\)"
                                      r"\. Check the name and the network"):
        open_data(DataSettings(source="hf:owner/none"))


def test_a_configuration_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(place: str, subset: str | None) -> datasets.DatasetDict:
        asked.append((place, subset))
        types = datasets.Features({"image": datasets.Image(), "label": NAMES})
        table = datasets.Dataset.from_dict({"image": pictures(8), "label": [0, 1] * 4}, features=types)
        return datasets.DatasetDict({"training": table})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = open_data(DataSettings(source="hf:owner/name", subset="small"))
    assert asked == [("owner/name", "small")]
    assert (data.name, len(data.train), len(data.test)) == ("hf:owner/name", 6, 2)


def test_tables_go_to_workers(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train", {"label": NAMES}, n=20, label=[0, 1] * 10)
    data = opened(folder, in_memory=False, augment="resized-crop")
    epochs = [list(Batches(data.train, 4, train=True, augmentation=data.augmentation, workers=workers).epoch())
              for workers in (0, 2)]
    assert all(torch.equal(a.images, b.images) for a, b in zip(*epochs, strict=True))
    assert np.isclose(data.statistics.mean[0], np.mean(brightness(data)) / 255)
