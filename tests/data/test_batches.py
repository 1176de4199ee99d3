"""Batches: order and augmentation are functions of seed, epoch and place, whatever the number of ranks."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from limbeck.data import Augmentation, Batches, Split, hold_out
from limbeck.data.augment import Kind
from limbeck.data.images import Images
from limbeck.errors import Mistake
from limbeck.seen import Batch

KINDS: list[Kind] = ["none", "crop", "crop-flip", "resized-crop"]


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    return all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) and torch.equal(a.targets, b.targets)
               for a, b in zip(one, other, strict=True))


def woven(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Images and rows of one step of several ranks, in the order of the global batch."""
    order = sorted((place, rank) for rank, batch in enumerate(batches) for place in range(len(batch)))
    return (torch.stack([batches[rank].images[place] for place, rank in order]),
            torch.stack([batches[rank].index[place] for place, rank in order]))


@pytest.mark.parametrize("train", [True, False])
def test_an_epoch_is_every_image_once_and_the_last_batch_is_kept(split: Callable[..., Split], train: bool) -> None:
    batches = Batches(split(23), 5, train=train, seed=3)
    epoch = list(batches.epoch(2))
    assert [len(batch) for batch in epoch] == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    rows = torch.cat([batch.index for batch in epoch])
    assert rows.sort().values.tolist() == list(range(23))
    assert (rows.tolist() == list(range(23))) is not train


def test_batches_say_which_images_they_hold(split: Callable[..., Split]) -> None:
    part = hold_out(split(40, classes=4), 0.5, seed=0)[1]
    store = part.store
    assert isinstance(store, Images)
    for batch in Batches(part, 6, train=True).epoch():
        assert torch.equal(batch.images, store.pixels[batch.index] / 255)
        assert torch.equal(batch.targets, batch.index % 4)
        assert set(batch.index.tolist()) <= set(part.index.tolist())
        assert (batch.images.dtype, batch.index.dtype, batch.targets.dtype) == (torch.float32, torch.int64, torch.int64)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_depend_on_seed_and_number_alone(split: Callable[..., Split], kind: Kind) -> None:
    def epoch(seed: int, number: int) -> list[Batch]:
        torch.manual_seed(torch.seed() % 1000)
        return list(Batches(split(20), 8, train=True, augmentation=Augmentation(kind, 2), seed=seed).epoch(number))

    assert same(epoch(0, 1), epoch(0, 1))
    assert not same(epoch(0, 1), epoch(0, 2))
    assert not same(epoch(0, 1), epoch(1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_goes_on_from_any_step(split: Callable[..., Split], kind: Kind) -> None:
    batches = Batches(split(20), 3, train=True, augmentation=Augmentation(kind, 2))
    whole = list(batches.epoch(4))
    for start in (1, 6, 7):
        assert same(whole[start:], batches.epoch(4, start))


@pytest.mark.parametrize("images", [24, 29, 31])
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_together_see_what_one_process_sees(split: Callable[..., Split], images: int, world: int,
                                                  kind: Kind) -> None:
    data, augmentation = split(images), Augmentation(kind, 2)
    alone = Batches(data, 4 * world, train=True, augmentation=augmentation, seed=1)
    ranks = [Batches(data, 4, train=True, augmentation=augmentation, seed=1, rank=r, world=world) for r in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    dropped = 0 < images % (4 * world) < world
    assert len(ranks[0]) == len(alone) - dropped
    for start in (0, 1):
        steps = zip(*(rank.epoch(3, start) for rank in ranks), strict=True)
        for step, expected in zip(steps, alone.epoch(3, start), strict=not dropped):
            drawn, rows = woven(list(step))
            assert torch.equal(rows, expected.index)
            torch.testing.assert_close(drawn, expected.images, atol=0 if kind != "resized-crop" else 1e-6, rtol=0)


def test_a_last_batch_without_an_image_for_each_rank_is_dropped(split: Callable[..., Split]) -> None:
    ranks = [Batches(split(13), 2, train=True, rank=r, world=3) for r in range(3)]
    assert [[len(batch) for batch in rank.epoch()] for rank in ranks] == [[2, 2]] * 3
    ranks = [Batches(split(11), 2, train=True, rank=r, world=3) for r in range(3)]
    assert [[len(batch) for batch in rank.epoch()] for rank in ranks] == [[2, 2], [2, 2], [2, 1]]


@pytest.mark.parametrize("images", [1, 7, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_each_image_once_and_plain(split: Callable[..., Split], images: int, world: int) -> None:
    data = split(images)
    seen = []
    for r in range(world):
        rank = Batches(data, 2, train=False, augmentation=Augmentation("crop-flip", 2), rank=r, world=world)
        epoch = list(rank.epoch())
        assert len(epoch) == len(rank)
        assert same(epoch[1:], rank.epoch(start=1))
        for batch in epoch:
            assert torch.equal(batch.images, data.store.sample(batch.index) / 255)
            seen += batch.index.tolist()
    assert sorted(seen) == list(range(images))


def test_the_stream_is_endless_and_needs_no_state(split: Callable[..., Split]) -> None:
    augmentation = Augmentation("crop-flip", 2)
    batches, again = (Batches(split(10), 4, train=True, augmentation=augmentation, seed=2) for _ in range(2))
    forth = [batches.at(step) for step in range(9)]
    back = [again.at(step) for step in reversed(range(9))]
    assert same(forth, reversed(back))
    assert all(len(batch) == 4 for batch in forth)
    assert len({tuple(batch.index.tolist()) for batch in forth}) == 9
    assert not set(forth[0].index.tolist()) & set(forth[1].index.tolist())  # within one pass nothing comes twice
    assert set(torch.cat([batch.index for batch in forth]).tolist()) == set(range(10))
    assert not same([forth[0]], [next(batches.epoch(0))])


def test_the_stream_of_a_small_split_is_all_of_it(split: Callable[..., Split]) -> None:
    batches = Batches(split(3), 8, train=True)
    assert batches.at(0).index.sort().values.tolist() == batches.at(7).index.sort().values.tolist() == [0, 1, 2]


def test_the_stream_is_shared_among_ranks(split: Callable[..., Split]) -> None:
    alone = Batches(split(20), 6, train=True).at(4)
    ranks = [Batches(split(20), 3, train=True, rank=r, world=2).at(4) for r in range(2)]
    assert torch.equal(woven(ranks)[1], alone.index)


def test_unlabelled_images_have_no_targets(noise: Callable[..., Tensor]) -> None:
    batches = Batches(Split.whole(Images(noise(5)), None), 2, train=True)
    assert [batch.targets for batch in batches.epoch()] == [None] * 3
    assert batches.at(0).targets is None


def test_the_global_random_state_is_left_alone(split: Callable[..., Split]) -> None:
    before = torch.get_rng_state()
    batches = Batches(split(9), 4, train=True, augmentation=Augmentation("crop-flip", 2))
    list(batches.epoch())
    batches.at(1)
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_has_an_image(split: Callable[..., Split]) -> None:
    with pytest.raises(Mistake, match=r"a batch needs an image at least; got a batch size of 0. Set it to 1 or more"):
        Batches(split(4), 0, train=True)


def test_every_rank_has_an_image(split: Callable[..., Split]) -> None:
    with pytest.raises(Mistake, match=r"every rank needs an image to train on; got 4 images for 8 ranks. Start fewer"):
        Batches(split(4), 2, train=True, world=8)
