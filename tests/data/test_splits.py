"""Splits in memory: what is held out, what keeps its row, and how a device holds the pixels once."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.chance import generator
from limbeck.data.images import Images, Split, hold_out, resize, stratified
from limbeck.errors import Mistake


def test_held_out_part_has_every_class_and_nothing_twice(split: Callable[..., Split]) -> None:
    whole = split(100, classes=3)
    rest, held = hold_out(whole, 0.2, seed=0)
    assert sorted(torch.cat([rest.index, held.index]).tolist()) == list(range(100))
    assert held.labels is not None
    assert held.labels.bincount().tolist() == [7, 7, 7]  # a fifth of 34, 33 and 33
    assert rest.store is held.store is whole.store


def test_held_out_part_depends_on_the_seed_alone(split: Callable[..., Split]) -> None:
    torch.manual_seed(0)
    first = hold_out(split(60), 0.2, seed=5)[1].index
    torch.manual_seed(1)
    assert torch.equal(first, hold_out(split(60), 0.2, seed=5)[1].index)
    assert not torch.equal(first, hold_out(split(60), 0.2, seed=6)[1].index)
    assert not torch.equal(first, first.sort(descending=True).values)
    assert first.tolist() != list(range(0, 60, 5))


def test_cut_of_a_class_does_not_depend_on_the_others() -> None:
    labels = torch.arange(90) % 3
    few = stratified(labels[labels < 2], 60, 0.3, seed=0)
    assert torch.equal(stratified(labels, 90, 0.3, seed=0)[labels < 2], few)


def test_small_classes_are_on_both_sides() -> None:
    held = stratified(torch.tensor([0, 0, 1, 2, 2, 2]), 6, 0.1, seed=0)
    assert [int(held[:2].sum()), int(held[2:3].sum()), int(held[3:].sum())] == [1, 0, 1]
    assert stratified(None, 10, 0.9999, seed=0).sum() == 9


def test_parts_of_parts_keep_their_rows(split: Callable[..., Split]) -> None:
    rest, _ = hold_out(split(50), 0.2, seed=0)
    part = rest.subset(torch.tensor([3, 1]))
    assert part.index.tolist() == [rest.index[3], rest.index[1]]
    assert part.labels is not None
    assert part.labels.tolist() == [part.index[0] % 3, part.index[1] % 3]
    assert len(part) == 2


def test_unlabelled_images_are_held_out_too(noise: Callable[..., Tensor]) -> None:
    rest, held = hold_out(Split.whole(Images(noise(20)), None), 0.25, seed=0)
    assert (len(rest), len(held), held.labels) == (15, 5, None)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0])
def test_fraction_must_be_one(split: Callable[..., Split], fraction: float) -> None:
    with pytest.raises(Mistake, match=rf"must be between 0 and 1; got {fraction}\. 0\.1 holds out a tenth"):
        hold_out(split(10), fraction, seed=0)


def test_nothing_to_hold_out(split: Callable[..., Split]) -> None:
    with pytest.raises(Mistake, match="a class of two images at least; these 3 have none"):
        hold_out(split(3, classes=3), 0.5, seed=0)


def test_generators_differ_by_key_and_by_nothing_else() -> None:
    def first(*key: int | str) -> int:
        return int(torch.randint(2**62, (), generator=generator(*key)))

    assert first("epoch", 0, 1) == first("epoch", 0, 1)
    assert len({first("epoch", 0, 1), first("epoch", 1, 0), first("stream", 0, 1), first("epoch", 0, 11)}) == 4
    assert first("epoch", 0, 1) == 3771798051329594529  # from a first run: runs of last year must be repeatable


def test_resize_takes_the_middle_and_averages(noise: Callable[..., Tensor]) -> None:
    wide = noise(3, 8, 14)
    assert torch.equal(resize(wide, None), wide)
    assert torch.equal(resize(wide, 8), wide[:, :, :, 3:11])
    small = resize(wide, 4)
    expected = F.interpolate(wide[:, :, :, 3:11].float(), (4, 4), mode="bilinear", antialias=True)
    assert small.dtype == torch.uint8
    assert (small.float() - expected).abs().max() <= 1


def test_other_devices_get_the_pixels_once(noise: Callable[..., Tensor]) -> None:
    images = Images(noise(4))
    rows, draws, device = torch.arange(4), torch.empty(4, 0), torch.device("meta")
    for _ in range(2):
        batch, index, _ = next(images.batches(rows, draws, 2, Augmentation(), device, 0))
        assert (batch.device, index.device) == (device, device)
        assert batch.shape == (2, 3, 8, 8)
    assert images._held._on(device) is images._held._on(device)
    assert torch.equal(images.sample(rows), images.pixels)


def test_pixels_that_a_device_has_no_room_for_stay(noise: Callable[..., Tensor],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(noise(4))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (images.pixels.nbytes, 2**40))
    assert images._held._on(torch.device("cuda")) is images.pixels
