"""Views that are counted: a number stands for one content of one image, and training is the same with and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from limbeck.data import Augmentation, Batches, EveryView, SomeViews, Split, Strong, Views, views_of
from limbeck.data.augment import Kind
from limbeck.data.images import Images
from limbeck.data.randaugment import RandAugment

SMALL = [Augmentation("none"), Augmentation("crop", 1), Augmentation("crop-flip", 1)]


@pytest.mark.parametrize("augmentation", SMALL, ids=lambda a: a.kind)
def test_every_view_has_one_number(split: Callable[..., Split], augmentation: Augmentation) -> None:
    views, some = EveryView(augmentation), split(3)
    assert views.count == views_of(augmentation) == {"none": 1, "crop": 9, "crop-flip": 18}[augmentation.kind]
    rows, contents = some.index, set()
    for view in range(views.count):
        draws = views.draws(rows, view)
        assert torch.equal(views.choose(rows, draws, 0, 0)[1], rows * views.count + view)
        contents.add(augmentation(some.store.sample(rows), draws).numpy().tobytes())
    assert len(contents) == views.count


@pytest.mark.parametrize("augmentation", SMALL, ids=lambda a: a.kind)
def test_counting_changes_no_batch_and_the_number_gives_the_image_again(split: Callable[..., Split],
                                                                        augmentation: Augmentation) -> None:
    views, some = EveryView(augmentation), split(23)
    counted = Batches(some, 5, train=True, augmentation=augmentation, seed=3, repertoire=views)
    plain = Batches(some, 5, train=True, augmentation=augmentation, seed=3)
    for one, other in zip(counted.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(one.images, other.images)
        assert other.view_ids is None
        for number, image in zip(one.view_ids.tolist(), one.images, strict=True):
            row, view = divmod(number, views.count)
            again = augmentation(some.store.sample(torch.tensor([row])), views.draws(torch.tensor([row]), view))
            assert torch.equal(again[0], image)


def test_an_epoch_that_begins_in_its_middle_has_the_same_numbers(split: Callable[..., Split]) -> None:
    batches = Batches(split(20), 4, train=True, augmentation=SMALL[2], repertoire=EveryView(SMALL[2]))
    whole, rest = list(batches.epoch(1)), list(batches.epoch(1, 2))
    assert [batch.view_ids.tolist() for batch in whole[2:]] == [batch.view_ids.tolist() for batch in rest]


@pytest.mark.parametrize("kind", ["resized-crop", "crop-flip"])
def test_some_views_are_each_taken_once_in_as_many_passes(split: Callable[..., Split], kind: Kind) -> None:
    augmentation, some = Augmentation(kind, 2), split(10, side=12)
    views = SomeViews(augmentation, len(some.store), 3)
    batches = Batches(some, 4, train=True, augmentation=augmentation, seed=1, repertoire=views)
    seen: dict[int, torch.Tensor] = {}
    for epoch in range(6):
        for batch in batches.epoch(epoch):
            for number, image in zip(batch.view_ids.tolist(), batch.images, strict=True):
                assert (number in seen) is (epoch >= 3)
                torch.testing.assert_close(seen.setdefault(number, image), image)
    assert sorted(seen) == list(range(30))
    again = augmentation(some.store.sample(some.index), views.draws(some.index, 2))
    torch.testing.assert_close(again, torch.stack([seen[row * 3 + 2] for row in range(10)]))


def test_what_is_done_behind_a_crop_belongs_to_the_view(split: Callable[..., Split]) -> None:
    augmentation, some = Augmentation("crop-flip", 2, after=RandAugment(9.0, 0.5)), split(6, side=12)
    assert views_of(augmentation) is None
    views = SomeViews(augmentation, 6, 2)
    batches = Batches(some, 6, train=True, augmentation=augmentation, repertoire=views)
    seen: dict[int, torch.Tensor] = {}
    for epoch in range(4):
        for batch in batches.epoch(epoch):
            for number, image in zip(batch.view_ids.tolist(), batch.images, strict=True):
                assert torch.equal(seen.setdefault(number, image), image)
    assert len(seen) == 12


def test_the_run_s_seed_orders_some_views_and_another_seed_draws_them(split: Callable[..., Split]) -> None:
    augmentation, some = Augmentation("resized-crop"), split(4, side=12)
    one, other = (SomeViews(augmentation, 4, 5, seed) for seed in (0, 1))
    assert not torch.equal(one.draws(some.index, 0), other.draws(some.index, 0))

    def order(seed: int) -> list[int]:
        chosen = [one.choose(some.index, torch.zeros(4, augmentation.columns), seed, epoch) for epoch in range(5)]
        return [int(ids[0]) for _, ids in chosen]

    assert order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1)) == list(range(5))


def test_further_views_of_an_image_stay_as_they_were(split: Callable[..., Split]) -> None:
    own, some = Augmentation("crop-flip", 2), split(8)
    views = Views((own, Strong(own)))
    plain = Batches(some, 8, train=True, augmentation=views)
    for repertoire in (EveryView(own), SomeViews(own, 8, 2)):
        counted = Batches(some, 8, train=True, augmentation=views, repertoire=repertoire)
        one, other = next(counted.epoch(0)), next(plain.epoch(0))
        assert torch.equal(one.views[0], other.views[0])
        assert torch.equal(one.images, other.images) is isinstance(repertoire, EveryView)


def test_two_ranks_have_the_numbers_of_one(split: Callable[..., Split]) -> None:
    some = split(12)
    every = EveryView(SMALL[2])

    def numbers(rank: int, world: int, size: int) -> set[int]:
        batches = Batches(some, size, train=True, augmentation=SMALL[2], rank=rank, world=world, repertoire=every)
        return {number for batch in batches.epoch(0) for number in batch.view_ids.tolist()}

    assert numbers(0, 2, 2) | numbers(1, 2, 2) == numbers(0, 1, 4)
    assert isinstance(some.store, Images)
