"""Data sets of images and maps: every layout, what labels and depths mean, sizes, memory, splits, and mistakes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_tiny import SIZE, depths, labels, pairs, parquet, picture, png, put
from PIL import Image
from torch import Tensor

from limbeck.config import DataSettings
from limbeck.data import Batches, Data, Joint, hold_out, open_data
from limbeck.data.scenes import Scenes, StreamedScenes
from limbeck.data.sources.cityscapes import CLASSES
from limbeck.errors import Mistake
from limbeck.seen import Batch
from limbeck.tasks.depth import Depth
from limbeck.tasks.segmentation import VOID, Segmentation


def opened(source: object, **settings: Any) -> Data:
    return open_data(DataSettings(source=str(source), **{"workers": 0, **settings}))


def first(data: Data, count: int = 5) -> Batch:
    """Test images, plain."""
    return next(Batches(data.test, count, train=False, workers=0).epoch())


def expected_labels(seed: int) -> Tensor:
    return torch.from_numpy(np.asarray(labels(seed)).astype(np.int64))


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}", "{kind}/{split}/deep/er"])
def test_folders_of_images_and_label_maps(tmp_path: Path, layout: str) -> None:
    data = opened(pairs(tmp_path, layout=layout))
    assert data.task == Segmentation(3, names=("0", "1", "2"))
    assert (len(data.train), len(data.test), data.image_size, data.channels) == (5, 5, SIZE, 3)
    batch = first(data)
    assert batch.targets is not None
    assert torch.equal(batch.targets[1], expected_labels(301))
    assert torch.equal(batch.images[1], torch.from_numpy(np.array(picture(301))).permute(2, 0, 1) / 255)
    assert data.notes == (f"{tmp_path} has no labelled test split: its split 'val' is scored",)


def test_a_folder_without_splits_is_cut(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, layout="{kind}", splits=("train",), images=10))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "a fixed fifth, 2 of 10 images" in data.notes[0]


def test_folders_of_depth(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, "depth"))
    assert isinstance(data.task, Depth)
    assert data.task.farthest == 4.0
    assert (data.classes, data.image_size) == ((), SIZE)
    found = first(data).targets
    assert found is not None
    assert found.dtype == torch.float32
    millimetres = np.asarray(depths(302)).astype(np.float32)
    millimetres[0, 1] = 0  # 65535, what a sensor that saw nothing writes
    torch.testing.assert_close(found[2], torch.from_numpy(millimetres / 1000))


def test_depth_may_have_any_unit(tmp_path: Path) -> None:
    folder = pairs(tmp_path, "depth")
    one, other = (first(opened(folder, depth_unit=unit)).targets for unit in (None, 0.0002))
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one, 5 * other)


def test_depth_as_floats_is_in_metres(tmp_path: Path) -> None:
    for i in range(5):
        metres = np.random.default_rng(i).uniform(0.5, 4, SIZE).astype(np.float32)
        metres[0, :3] = np.nan, np.inf, -1
        put(tmp_path / "images" / f"{i}.png", picture(i))
        put(tmp_path / "depth" / f"{i}.tiff", Image.fromarray(metres))
    data = opened(tmp_path)
    found = first(data, 1).targets
    assert found is not None
    assert found[0, 0, :3].tolist() == [0, 0, 0]
    assert 0.5 <= found[found > 0].min() <= found.max() <= 4


def test_cityscapes(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 34, (4, 8), dtype=np.uint8)
    for split in ("train", "val"):
        for i in range(2):
            put(tmp_path / f"leftImg8bit/{split}/ulm/ulm_{i}_leftImg8bit.png", picture(i, (4, 8)))
            put(tmp_path / f"gtFine/{split}/ulm/ulm_{i}_gtFine_labelIds.png", Image.fromarray(numbers))
            put(tmp_path / f"gtFine/{split}/ulm/ulm_{i}_gtFine_color.png", picture(i, (4, 8)))
    data = opened(tmp_path)
    assert len(data.classes) == 19
    assert (data.classes[0], data.classes[13], data.classes[18]) == ("road", "car", "bicycle")
    found = first(data, 1).targets
    assert found is not None
    ids = list(CLASSES)
    assert found[0].tolist() == [[ids.index(n) if n in CLASSES else VOID for n in row] for row in numbers.tolist()]
    (tmp_path / "gtFine/val/ulm/ulm_1_gtFine_labelIds.png").unlink()
    with pytest.raises(Mistake, match=r"needs its label map; 1 of 2 are not there, as .*ulm_1_gtFine_labelIds\.png"):
        opened(tmp_path)


@pytest.mark.parametrize(("column", "make", "kind"), [
    ("label", labels, Segmentation), ("annotation", labels, Segmentation), ("depth", depths, Depth),
    ("depth_map", depths, Depth)])
def test_parquet_files_of_images_and_maps(tmp_path: Path, column: str, make: Any, kind: type) -> None:
    for split in ("train", "validation"):
        files = {"image": [png(picture(i)) for i in range(4)], column: [png(make(i)) for i in range(4)]}
        parquet(tmp_path, files, split)
    data = opened(tmp_path)
    assert isinstance(data.task, kind)
    assert (len(data.train), len(data.test)) == (4, 4)
    one = first(data)
    assert one.targets is not None
    assert one.targets.shape == (4, *SIZE)


def test_classes_are_named_by_the_folder_and_void_drops_out(tmp_path: Path) -> None:
    """As in CamVid: classes.txt beside the parquet file; the void class may stand anywhere."""
    files = {"image": [png(picture(i)) for i in range(4)], "label": [png(labels(i)) for i in range(4)]}
    parquet(tmp_path, files)
    parquet(tmp_path, files, "test")
    (tmp_path / "classes.txt").write_text("sky\nVoid\nroad\n")
    data = opened(tmp_path)
    assert data.classes == ("sky", "road")
    assert data.task == Segmentation(2, names=("sky", "road"))
    numbers = expected_labels(0)
    expected = torch.where(numbers == 2, 1, torch.where(numbers == 0, 0, VOID))
    found = first(data).targets
    assert found is not None
    assert torch.equal(found[0], expected)


def test_names_and_void_may_be_given(tmp_path: Path) -> None:
    folder = pairs(tmp_path)
    data = opened(folder, class_names=["a", "b", "c", "d"], void=0)
    assert data.classes == ("b", "c", "d")
    found = first(data).targets
    assert found is not None
    assert torch.equal(found[0], torch.where(expected_labels(300) == 0, VOID, expected_labels(300) - 1).where(
        expected_labels(300) != VOID, torch.tensor(VOID)))


def test_label_maps_with_a_palette_or_saved_as_grey_colours(tmp_path: Path) -> None:
    numbers = np.asarray(labels(1))
    palette = Image.fromarray(numbers).convert("P")
    palette.putdata(numbers.flatten().tolist())
    for i, image in enumerate([labels(1), palette, Image.fromarray(np.stack([numbers] * 3, 2))]):
        put(tmp_path / f"images/train/{i}.png", picture(i))
        put(tmp_path / f"labels/train/{i}.png", image)
        put(tmp_path / f"images/test/{i}.png", picture(i))
        put(tmp_path / f"labels/test/{i}.png", image)
    found = first(opened(tmp_path)).targets
    assert found is not None
    assert all(torch.equal(one, expected_labels(1)) for one in found)


def test_sizes(tmp_path: Path) -> None:
    """One number is the shorter side, two are height and width; images by all pixels, maps by the nearest."""
    folder = pairs(tmp_path)
    assert opened(folder, size=3).image_size == (3, 4)
    assert opened(folder, size=(12, 8)).image_size == (12, 8)
    double = first(opened(folder, size=12)).targets
    assert double is not None
    assert torch.equal(double[0], expected_labels(300).repeat_interleave(2, 0).repeat_interleave(2, 1))
    data = opened(folder, crop=4)
    assert (data.image_size, data.test.store.image_size) == ((4, 4), SIZE)
    train = next(Batches(data.train, 3, train=True, augmentation=data.augmentation).epoch())
    assert train.targets is not None
    assert (train.images.shape, train.targets.shape) == ((3, 3, 4, 4), (3, 4, 4))


def test_augmentation_is_the_tasks_custom(tmp_path: Path) -> None:
    scenes, rooms = pairs(tmp_path / "a"), pairs(tmp_path / "b", "depth")
    assert opened(scenes, crop=4).augmentation == Joint((4, 4), (0.7, 2.1), mirror=True)
    assert opened(rooms).augmentation == Joint(None, (1.0, 1.5), 5.0, True, 0.4)
    assert opened(rooms, augment="none", crop=(2, 4)).augmentation == Joint((2, 4), wander=False)
    assert opened(scenes, augment="crop-flip", rotate=3, scale=(1, 2)).augmentation == Joint(
        None, (1, 2), 3.0, True)


def test_scaling_brings_things_nearer(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, "depth"), augment="none", scale=(2, 2))
    batch = next(Batches(data.train, 5, train=True, augmentation=data.augmentation).epoch())
    plain = data.train.store.maps(batch.index)
    assert batch.targets is not None
    assert plain is not None
    seen = {round(value, 4) for value in (2 * batch.targets).flatten().tolist()}
    assert seen <= {round(value, 4) for value in plain.flatten().tolist()}
    assert len(seen) > 10


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_and_held_pairs_are_the_same(tmp_path: Path, workers: int) -> None:
    folder = pairs(tmp_path, "depth", images=7)
    held, streamed = (opened(folder, in_memory=held, size=5, crop=(4, 4), sparse_depth=3) for held in (True, False))
    assert isinstance(held.train.store, Scenes)
    assert isinstance(streamed.train.store, StreamedScenes)
    assert (held.fingerprint, held.statistics) == (streamed.fingerprint, streamed.statistics)
    for train in (True, False):
        batches = [list(Batches(data.train, 3, train=train, augmentation=data.augmentation, workers=workers).epoch(1))
                   for data in (held, streamed)]
        assert [len(batch) for batch in batches[0]] == [3, 3, 1]
        for one, other in zip(*batches, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.index, other.index)
            assert one.targets is not None
            assert other.targets is not None
            assert torch.equal(one.targets, other.targets)


def test_any_step_and_rank_as_one_process(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, images=8), crop=4)

    def batches(size: int, rank: int = 0, world: int = 1) -> Batches:
        return Batches(data.train, size, train=True, augmentation=data.augmentation, seed=3, rank=rank, world=world)

    whole = list(batches(4).epoch(2))
    again = list(batches(4).epoch(2, 1))
    assert torch.equal(whole[1].images, again[0].images)
    for rank in range(2):
        part = next(batches(2, rank, 2).epoch(2))
        assert torch.equal(part.images, whole[0].images[rank::2])
        assert part.targets is not None
        assert whole[0].targets is not None
        assert torch.equal(part.targets, whole[0].targets[rank::2])
    assert not torch.equal(whole[0].images, next(batches(4).epoch(3)).images)


def test_readings_of_depth_are_a_fourth_channel(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, "depth"), sparse_depth=5)
    assert data.channels == 4
    batch, again = first(data), first(data)
    assert batch.targets is not None
    sparse = batch.images[:, 3]
    assert (sparse > 0).flatten(1).sum(1).tolist() == [5] * 5
    assert torch.equal(sparse[sparse > 0], batch.targets[sparse > 0])
    assert torch.equal(batch.images, again.images), "all networks are scored on the same readings"
    train = Batches(data.train, 5, train=True, augmentation=Joint())
    one, other = (sorted_by(next(train.epoch(epoch))) for epoch in (0, 1))
    assert not torch.equal(one, other), "training draws them anew"


def sorted_by(batch: Batch) -> Tensor:
    return batch.images[batch.index.argsort(), 3]


def test_holding_out_needs_no_classes(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, images=10))
    rest, held = hold_out(data.train, 0.2, seed=1)
    assert (len(rest), len(held)) == (8, 2)
    assert sorted([*rest.index.tolist(), *held.index.tolist()]) == list(range(10))
    assert rest.labelled
    assert next(Batches(held, 2, train=False).epoch()).targets is not None


def test_the_fingerprint_tells_other_maps(tmp_path: Path) -> None:
    folder = pairs(tmp_path)
    before = opened(folder).fingerprint
    assert opened(folder, crop=4).fingerprint == before
    changed = np.asarray(labels(500)).copy()
    changed[3, 3] = (changed[3, 3] + 1) % 3
    put(folder / "labels/train/0.png", Image.fromarray(changed))
    assert opened(folder).fingerprint != before


def test_broken_pairs_are_named_or_skipped(tmp_path: Path) -> None:
    folder = pairs(tmp_path)
    broken = folder / "labels/val/3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    for held in (True, False):
        with pytest.raises(Mistake, match=r"every map must be readable; .*3\.png is not"):
            first(opened(folder, in_memory=held, class_names=["a", "b", "c"]))
        data = opened(folder, in_memory=held, skip_unreadable=True)
        assert (len(data.test), data.skipped, len(first(data))) == (4, 1, 4)


def test_a_worker_names_a_broken_map(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path), in_memory=False, class_names=["a", "b"])
    with pytest.raises(Mistake, match=r"whose numbers go to 1, or 255 for void; .* holds \[2\]"):
        list(Batches(data.train, 5, train=False, workers=1).epoch())


def test_maps_of_another_kind_are_refused(tmp_path: Path) -> None:
    colours, rooms = pairs(tmp_path / "a"), pairs(tmp_path / "b", "depth")
    put(colours / "labels/train/0.png", picture(1))
    with pytest.raises(Mistake, match=r"one class number from 0 to 255 a pixel; .*0\.png holds 3 channels"):
        opened(colours)
    put(rooms / "depth/train/1.png", picture(1))
    with pytest.raises(Mistake, match=r"one number a pixel, of 16 bits or a float; .*1\.png holds 3 channels"):
        opened(rooms)


def test_a_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = pairs(tmp_path)
    put(folder / "labels/val/2.png", labels(1, (8, 8)))
    with pytest.raises(Mistake, match=r"the shape of its image; .*labels/val/2\.png has 8x8 pixels, .* 8x6"):
        opened(folder)
    put(folder / "labels/val/2.png", labels(1, (12, 16)))  # larger, and of one shape: read at its size
    assert len(opened(folder).test) == 5


@pytest.mark.parametrize(("settings", "parts"), [
    ({"classes": 2, "depth_unit": 0.1, "augment": "resized-crop"}, ["data.classes does not belong to segmentation",
                                                                  "data.depth_unit does not", "data.augment of"]),
    ({"scale": (2, 1)}, ["least and the greatest factor; got [2.0, 1.0]"]),
    ({"task": "depth"}, ["depth needs a folder of images and one of maps; ", "has maps for ['segmentation']"]),
    ({"mixup": 0.2}, ["data.mixup does not belong to segmentation"]),
    ({"class_names": ["void", "Ignore"]}, ["needs a class that counts; of ['void', 'Ignore'] none does"])])
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(Mistake) as told:
        opened(pairs(tmp_path), **settings)
    assert all(part in str(told.value) for part in parts), told.value


def test_images_by_class_take_no_settings_of_maps() -> None:
    with pytest.raises(Mistake, match=r"take no data\.crop, data\.void, data\.size of two numbers"):
        opened("digits", crop=4, void=0, size=(4, 4))
    with pytest.raises(Mistake, match=r"data\.task is depth, and digits is made for classification"):
        opened("digits", task="depth")


def test_images_without_a_map_and_splits_without_train(tmp_path: Path) -> None:
    lone = pairs(tmp_path / "a")
    (lone / "labels/val/1.png").unlink()
    with pytest.raises(Mistake, match=r"a map of its name; 1 of 5 have none in .*val, as 1\.png"):
        opened(lone)
    with pytest.raises(Mistake, match=r"needs a split named 'train'; .* has \['val'\]"):
        opened(pairs(tmp_path / "b", layout="{split}/{kind}", splits=("val",)), task="segmentation")


def test_a_folder_with_both_maps_asks_for_the_task(tmp_path: Path) -> None:
    pairs(tmp_path)
    pairs(tmp_path, "depth")
    with pytest.raises(Mistake, match="one task must be chosen"):
        opened(tmp_path)
    assert opened(tmp_path, task="depth").task.name == "depth"
    assert opened(tmp_path, task="segmentation").task.name == "segmentation"


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    folder = pairs(tmp_path)
    for kind, image in (("images", picture(1, (12, 10))), ("labels", labels(1, (12, 10)))):
        put(folder / kind / "train/0.png", image)
    with pytest.raises(Mistake, match=r"need one size; .* have \(8, 6\) to \(10, 12\) \(width, height\)"):
        opened(folder)
    assert opened(folder, size=(6, 8)).image_size == (6, 8)


def test_png_bytes_are_whole() -> None:
    assert np.asarray(Image.open(io.BytesIO(png(depths(1))))).max() == 65535
