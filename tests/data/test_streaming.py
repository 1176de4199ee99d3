"""Streamed images: the same views whatever the workers, and the same as plain Pillow gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data import Augmentation, Batches, Split
from limbeck.data.augment import resized_boxes
from limbeck.data.decode import Unreadable, decode_all
from limbeck.data.images import Images
from limbeck.data.sources.folder import Files
from limbeck.data.streaming import MARGIN, Streamed
from limbeck.seen import Batch


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Eleven random images of different sizes."""
    chance = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(11)]
    for i, path in enumerate(paths):
        Image.fromarray(chance.integers(0, 256, (24 + i, 40 - i, 3), dtype=np.uint8)).save(path)
    return Files(paths)


def streamed(files: Files, size: int = 16, share: float = 1.0) -> Split:
    return Split.whole(Streamed(files, size, share), torch.arange(len(files)))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) for a, b in
               zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["resized-crop", "crop-flip"])
def test_workers_change_nothing(files: Files, kind: str) -> None:
    epochs = [list(Batches(streamed(files), 4, train=True, augmentation=Augmentation(kind, 2),  # type: ignore[arg-type]
                           workers=workers).epoch(1)) for workers in (0, 1, 2)]
    assert [len(batch) for batch in epochs[0]] == [4, 4, 3]
    assert same(epochs[0], epochs[1])
    assert same(epochs[0], epochs[2])
    assert all(torch.equal(batch.targets, batch.index) for batch in epochs[2])


def test_epochs_differ_and_go_on_from_any_step(files: Files) -> None:
    batches = Batches(streamed(files), 4, train=True, augmentation=Augmentation("resized-crop"), workers=0)
    whole = list(batches.epoch(1))
    assert same(whole[2:], list(batches.epoch(1, 2)))
    assert not same(whole, list(batches.epoch(2)))
    assert same([batches.at(3)], [batches.at(3)])


def test_ranks_together_see_what_one_process_sees(files: Files) -> None:
    augmentation = Augmentation("resized-crop")
    alone = next(Batches(streamed(files), 6, train=True, augmentation=augmentation, workers=0).epoch())
    for rank in range(2):
        batch = next(Batches(streamed(files), 3, train=True, augmentation=augmentation, workers=0, rank=rank,
                             world=2).epoch())
        assert torch.equal(batch.images, alone.images[rank::2])
        assert torch.equal(batch.index, alone.index[rank::2])


def test_resized_crops_are_the_boxes_mirrored_or_not(files: Files) -> None:
    draws = Augmentation("resized-crop").draw(11, torch.Generator().manual_seed(0))
    views = Streamed(files, 16).views(range(11), draws, threads=2)
    for path, view, drawn in zip(files.read(range(11)), views, draws, strict=True):
        image = Image.open(path)
        top, left, height, width = resized_boxes(drawn[None], image.height, image.width)[0].tolist()
        box = (left, top, left + width, top + height)
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR, box))
        assert np.array_equal(view.permute(1, 2, 0), expected[:, ::-1] if drawn[-1] < 0.5 else expected)


def test_evaluation_looks_at_the_middle(files: Files) -> None:
    batch = next(Batches(streamed(files, 14, MARGIN), 11, train=False, workers=0).epoch())
    assert batch.index.tolist() == list(range(11))
    for path, view in zip(files.read(range(11)), batch.images, strict=True):
        image = Image.open(path)
        side = min(image.size) * 224 / 256
        left, top = (image.width - side) / 2, (image.height - side) / 2
        expected = np.asarray(image.resize((14, 14), Image.Resampling.BILINEAR, (left, top, left + side, top + side)))
        assert np.array_equal((view * 255).round().permute(1, 2, 0), expected)


def test_other_crops_are_those_of_images_in_memory(files: Files) -> None:
    held = Split.whole(Images(decode_all(files, 16, skip=False)[0]), torch.arange(11))
    augmentation = Augmentation("crop-flip", 2, "reflect")
    one, other = (list(Batches(split, 4, train=True, augmentation=augmentation, workers=0).epoch())
                  for split in (held, streamed(files)))
    assert same(one, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(files: Files, workers: int) -> None:
    files.path(7).write_bytes(files.path(7).read_bytes()[:99])
    with pytest.raises(Unreadable, match=r"^every image must be readable; .*7\.png is not \(OSError"):
        list(Batches(streamed(files), 4, train=True, workers=workers).epoch())


def test_the_global_random_state_is_left_alone(files: Files) -> None:
    before = torch.get_rng_state()
    list(Batches(streamed(files), 4, train=True, augmentation=Augmentation("resized-crop"), workers=1).epoch())
    assert torch.equal(before, torch.get_rng_state())


def test_samples_are_plain(files: Files) -> None:
    store = Streamed(files, 16)
    assert store.image_size == (16, 16)
    assert torch.equal(store.sample(torch.tensor([4, 2])), decode_all(files, 16, skip=False)[0][[4, 2]])


def test_streams_are_left_without_harm(files: Files) -> None:
    batches = Batches(streamed(files), 2, train=True, workers=2)
    next(batches.epoch())
    assert len(list(batches.epoch(1))) == len(batches) == 6
