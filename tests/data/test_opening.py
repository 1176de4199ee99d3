"""From settings to data: sources by name, folders, sizes, memory, augmentation, statistics, fingerprint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limbeck.config import DataSettings
from limbeck.data import SOURCES, Augmentation, Batches, Data, Split, hold_out, open_data, opening
from limbeck.data.images import Images, resize
from limbeck.data.streaming import MARGIN, Streamed
from limbeck.errors import Mistake


def opened(source: object, **settings: Any) -> Data:
    return open_data(DataSettings(source=str(source), **settings))


def test_digits_are_built_in() -> None:
    data = opened("digits")
    assert (data.name, data.classes, data.image_size) == ("digits", tuple("0123456789"), (8, 8))
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.augmentation == Augmentation("crop", 1)
    train, test = data.train.labels, data.test.labels
    assert train is not None
    assert test is not None
    assert (test.bincount() / (train.bincount() + test.bincount()) - 0.2).abs().max() < 0.005
    pixels = data.train.store.sample(data.train.index)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    assert "a fixed fifth of each class, 359 of 1797 images" in data.notes[0]


def test_opening_again_gives_the_same() -> None:
    one, other = opened("digits"), opened("digits")
    assert one.fingerprint == other.fingerprint
    assert torch.equal(one.test.store.sample(one.test.index), other.test.store.sample(other.test.index))


def test_fewer_classes_and_images_are_parts_of_all() -> None:
    whole, part = opened("digits"), opened("digits", classes=3, per_class=7)
    assert part.classes == ("0", "1", "2")
    assert part.train.labels is not None
    assert part.train.labels.bincount().tolist() == [7, 7, 7]
    assert part.test.labels is not None
    assert whole.test.labels is not None
    assert torch.equal(part.test.labels, whole.test.labels[whole.test.labels < 3])
    few = whole.train.store.sample((whole.train.labels == 1).nonzero()[:7, 0])
    assert torch.equal(part.train.store.sample((part.train.labels == 1).nonzero()[:, 0]), few)


@pytest.mark.parametrize(("source", "hint"), [
    ("digit", r"closest: \['digits'\]"), ("cifar10", r"'cifar10:FOLDER'"), ("cifra100:/data", r"'cifar100:FOLDER'"),
    ("hf:", r"'hf:NAME'"), ("/nowhere/at/all", r"there is \['digits', 'FOLDER'|closest")])
def test_unknown_sources(source: str, hint: str) -> None:
    with pytest.raises(Mistake, match=f"a source that is known, or a folder that exists; got '{source}'.*{hint}"):
        opened(source)
    assert "digits" in SOURCES


@pytest.mark.parametrize("test", ["test", "val", "validation", "valid"])
def test_a_folder_with_a_split(photographs: Callable[..., Path], test: str) -> None:
    folder = photographs(test=test)
    data = opened(folder)
    assert (data.classes, len(data.train), len(data.test)) == (("ant", "bee"), 8, 8)
    assert data.notes == (() if test == "test" else
                          (f"{folder} has no labelled test split: its split '{test}' is scored",))
    first = np.asarray(Image.open(folder / "train" / "bee" / "1.png"))
    assert np.array_equal(data.train.store.sample(torch.tensor([5]))[0].permute(1, 2, 0), first)
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4


def test_a_folder_without_a_split(photographs: Callable[..., Path]) -> None:
    folder = photographs(per_class=5, test=None)
    data = opened(folder)
    assert (data.classes, len(data.train), len(data.test)) == (("ant", "bee"), 8, 2)
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1]
    assert data.notes == (f"{folder} has no split to score: a fixed fifth of each class, 2 of 10 images, was cut off "
                          "for it",)


def test_a_folder_without_classes(photographs: Callable[..., Path]) -> None:
    data = opened(photographs(per_class=5, test=None) / "ant")
    assert (data.classes, data.train.labels, len(data.train), len(data.test)) == ((), None, 4, 1)
    assert next(Batches(data.train, 2, train=True).epoch()).targets is None
    with pytest.raises(Mistake, match=r"classes and per_class need labelled images; .*ant has images without. Leave"):
        opened(photographs(per_class=5, test=None, folder="other") / "ant", per_class=1)


def test_unlabelled_training_images_can_be_scored_on_labelled_ones(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    for path in list((folder / "train").rglob("*.png")):
        path.rename(folder / "train" / f"{path.parent.name}{path.name}")
    for name in ("ant", "bee"):
        (folder / "train" / name).rmdir()
    data = opened(folder)
    assert (data.classes, data.train.labels, len(data.train)) == (("ant", "bee"), None, 8)
    assert data.test.labels is not None


def test_images_may_lie_deeper_and_other_files_are_passed_over(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    (folder / "train" / "ant" / "images").mkdir()
    (folder / "train" / "ant" / "0.png").rename(folder / "train" / "ant" / "images" / "0.PNG")
    (folder / "train" / "ant" / "boxes.txt").write_text("no image")
    (folder / "train" / "ant" / ".hidden.png").write_text("no image")
    (folder / "train" / ".git").mkdir()
    assert len(opened(folder).train) == 8


def test_a_split_folder_has_a_part_to_train_on(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    shutil.rmtree(folder / "train")
    with pytest.raises(Mistake, match=r"needs one named 'train'; .* has \['test'\] only\. Name the split"):
        opened(folder)


def test_a_class_has_images(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    (folder / "train" / "cow").mkdir()
    with pytest.raises(Mistake, match=r"needs images of every class \(.*\.png.*has none of \['cow'\]\. Put images"):
        opened(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"needs images of every class .* has none. Put images there"):
        opened(tmp_path)


def test_a_test_class_is_one_of_train(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    (folder / "test" / "ant").rename(folder / "test" / "ants")
    with pytest.raises(Mistake, match=r"among those of train; .*test also has \['ants'\], closest: \['ant'\]\. Name"):
        opened(folder)


def test_more_classes_than_there_are(photographs: Callable[..., Path]) -> None:
    with pytest.raises(Mistake, match=r"got 5, where .* has 2. Ask for fewer"):
        opened(photographs(), classes=5)


def test_nothing_left_to_score(photographs: Callable[..., Path]) -> None:
    folder = photographs(classes=("ant", "bee", "cow"))
    shutil.rmtree(folder / "test" / "ant")
    shutil.rmtree(folder / "test" / "bee")
    with pytest.raises(Mistake, match=r"there must be images to score; .* has none of the chosen classes. Choose more"):
        opened(folder, classes=2)


def test_size_is_what_was_asked_for(photographs: Callable[..., Path]) -> None:
    folder = photographs(height=10, width=20)
    assert opened(folder).image_size == (10, 20)
    assert opened(folder, size=5).image_size == (5, 5)
    assert opened(folder, in_memory=False).image_size == (10, 10)
    assert opened("digits", size=16).image_size == (16, 16)


def test_small_images_are_enlarged_batch_by_batch() -> None:
    data, small = opened("digits", size=32, classes=2), opened("digits", classes=2)
    store = data.train.store
    assert isinstance(store, Images)
    assert store.pixels.shape[2:] == (8, 8)
    assert (data.image_size, data.augmentation) == ((32, 32), Augmentation("crop", 4))
    wanted = resize(small.train.store.sample(small.train.index), 32)
    assert torch.equal(store.sample(data.train.index), wanted)
    batch = next(Batches(data.train, 5, train=False).epoch())
    assert torch.equal(batch.images, wanted[:5] / 255)
    drawn = next(Batches(data.train, 5, train=True, augmentation=data.augmentation).epoch())
    held = Split.whole(Images(wanted), data.train.targets)
    assert torch.equal(drawn.images, next(Batches(held, 5, train=True, augmentation=data.augmentation).epoch()).images)


def test_small_images_of_unequal_sizes_need_a_size(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    Image.new("RGB", (20, 13)).save(folder / "train" / "ant" / "2.png")
    for in_memory in (None, True, False):
        with pytest.raises(Mistake, match=r"images need one size; .* have \(12, 12\) to \(20, 13\).*Give the size"):
            opened(folder, in_memory=in_memory)
    assert opened(folder, size=6).image_size == (6, 6)


def test_training_and_test_images_have_one_size(photographs: Callable[..., Path],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photographs()
    for path in (folder / "test").rglob("*.png"):
        Image.new("RGB", (9, 12)).save(path)
    monkeypatch.setattr(opening, "_shapes", lambda images, skip: [(12, 12)])  # as if the few looked at were all alike
    with pytest.raises(Mistake, match=r"training and test images need one size; .* has \(12, 12\) and \(12, 9\)"):
        opened(folder)


def test_photographs_of_unequal_sizes_are_streamed(photographs: Callable[..., Path]) -> None:
    folder = photographs(per_class=2, height=230, width=240)
    Image.new("RGB", (300, 226)).save(folder / "train" / "ant" / "1.png")
    data = opened(folder)
    assert isinstance(data.train.store, Streamed)
    assert (data.image_size, data.train.store.share) == ((224, 224), MARGIN)
    assert data.augmentation.kind == "resized-crop"
    batch = next(Batches(data.train, 3, train=True, augmentation=data.augmentation, workers=0).epoch())
    assert batch.images.shape == (3, 3, 224, 224)
    with pytest.raises(Mistake, match="images need one size"):
        opened(folder, in_memory=True)


def test_what_does_not_fit_is_streamed(photographs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photographs()
    monkeypatch.setattr(opening, "BUDGET", 16 * 3 * 12 * 12 - 1)
    assert isinstance(opened(folder).train.store, Streamed)
    assert isinstance(opened(folder, size=11).train.store, Images)
    assert isinstance(opened(folder, in_memory=True).train.store, Images)


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_images_are_named_or_left_out(photographs: Callable[..., Path], in_memory: bool) -> None:
    folder = photographs(per_class=40)
    damaged = folder / "train" / "bee" / "17.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    data = opened(folder, in_memory=in_memory, skip_unreadable=True)
    assert (data.skipped, len(data.train), len(data.test)) == (1, 79, 80)
    assert data.train.labels is not None
    assert data.train.labels.bincount().tolist() == [40, 39]
    with pytest.raises(Mistake, match=r"17\.png is not \(OSError"):
        list(Batches(opened(folder, in_memory=in_memory).train, 8, train=True, workers=0).epoch())


def test_nothing_readable(photographs: Callable[..., Path]) -> None:
    folder = photographs()
    for path in folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(Mistake, match=r"at least some images must be readable; of 8 tried none is, as .*0\.png"):
        opened(folder, skip_unreadable=True)
    with pytest.raises(Mistake, match=r"0\.png is not"):
        opened(folder)


@pytest.mark.parametrize(("side", "settings", "expected"), [
    (16, {}, Augmentation("crop-flip", 2)),
    (16, {"augment": "crop", "padding": 5, "padding_mode": "reflect"}, Augmentation("crop", 5, "reflect")),
    (16, {"augment": "none"}, Augmentation("none", 2)),
    (16, {"size": 128}, Augmentation("resized-crop", 16))])
def test_augmentation(photographs: Callable[..., Path], side: int, settings: Any, expected: Augmentation) -> None:
    assert opened(photographs(height=side, width=side), **settings).augmentation == expected


def test_too_much_to_reflect() -> None:
    with pytest.raises(Mistake, match=r"must be smaller than the image; got 8 for a side of 8 pixels\. Set"):
        opened("digits", padding=8, padding_mode="reflect")


def test_statistics_are_those_of_numpy(noise: Callable[..., Tensor]) -> None:
    pixels = noise(3000, 5, 7)
    pixels[:, 1] //= 3
    split = Split.whole(Images(pixels), None)
    data = Data("noise", (), split, split, Augmentation())
    values = pixels.numpy().astype(np.float64) / 255
    assert np.allclose(data.statistics.mean, values.mean((0, 2, 3)), atol=1e-7)
    assert np.allclose(data.statistics.std, values.std((0, 2, 3)), atol=1e-7)
    rest, _ = hold_out(split, 0.5, seed=0)
    half = Data("noise", (), rest, split, Augmentation())
    assert np.allclose(half.statistics.mean, values[rest.index].mean((0, 2, 3)), atol=1e-7)


def test_one_can_divide_by_the_deviation() -> None:
    split = Split.whole(Images(torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)), None)
    assert Data("grey", (), split, split, Augmentation()).statistics.std == (1 / 255,) * 3


def test_fingerprints_tell_images_labels_and_order_apart(noise: Callable[..., Tensor]) -> None:
    def fingerprint(pixels: Tensor, labels: list[int], classes: tuple[str, ...] = ("a", "b")) -> str:
        split = Split.whole(Images(pixels), torch.tensor(labels))
        return Data("any", classes, split, split, Augmentation()).fingerprint

    pixels = noise(3)
    changed = pixels.clone()
    changed[2, 2, 7, 7] ^= 1
    prints = [fingerprint(pixels, [0, 1, 1]), fingerprint(changed, [0, 1, 1]), fingerprint(pixels, [0, 1, 0]),
              fingerprint(pixels.flip(0), [0, 1, 1]), fingerprint(pixels, [0, 1, 1], ("b", "a"))]
    assert len(set(prints)) == 5
    assert fingerprint(pixels.clone(), [0, 1, 1]) == prints[0]
    assert len(prints[0]) == 16


def test_streamed_data_has_statistics_and_a_fingerprint(photographs: Callable[..., Path],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.data.dataset.SAMPLE", 3)
    folder = photographs()
    data = opened(folder, in_memory=False)
    expected = data.train.store.sample(torch.tensor([0, 2, 5])).numpy() / 255
    assert np.allclose(data.statistics.mean, expected.mean((0, 2, 3)), atol=1e-7)
    assert data.fingerprint == opened(folder, in_memory=False).fingerprint


def test_names_may_be_in_any_script(photographs: Callable[..., Path]) -> None:
    data = opened(photographs(classes=("Käfer", "蜂")), in_memory=False)
    assert data.classes == ("Käfer", "蜂")
    assert data.train.store.sample(torch.arange(8)).shape == (8, 3, 12, 12)
