"""Mixup and CutMix of whole batches: against torchvision's, and as functions of seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision.transforms import v2

from limbeck.data import Batches, Mixing, Split
from limbeck.data.mixing import mixed
from limbeck.seen import Batch


def batch(count: int = 6, *, views: int = 0, labelled: bool = True) -> Batch:
    chance = torch.Generator().manual_seed(0)
    images = [torch.rand(count, 3, 8, 10, generator=chance) for _ in range(1 + views)]
    return Batch(images[0], torch.arange(count) % 4 if labelled else None, torch.arange(count), tuple(images[1:]))


@pytest.mark.parametrize("mixing", [Mixing(4, mixup=0.8), Mixing(4, cutmix=1.0)], ids=["mixup", "cutmix"])
def test_images_and_targets_are_torchvisions(mixing: Mixing) -> None:
    given, cut = batch(), bool(mixing.cutmix)
    reference = (v2.CutMix if cut else v2.MixUp)(num_classes=4)
    for step in range(5):
        drawn, found = mixing.drawn(0, step, 8, 10), mixing(given, 0, step)
        top, bottom, left, right = drawn.box or (0, 0, 0, 0)
        params = {"lam": drawn.share, "lam_adjusted": drawn.share, "box": (left, top, right, bottom),
                  "labels": given.targets, "batch_size": 6}
        torch.testing.assert_close(found.images, reference.transform(given.images, params))
        torch.testing.assert_close(found.targets, reference.transform(given.targets, params))
        assert found.targets is not None
        torch.testing.assert_close(found.targets.sum(1), torch.ones(6))
        assert torch.equal(found.index, given.index)


def test_what_is_drawn_depends_on_seed_epoch_step_and_rank_alone() -> None:
    drawn = Mixing(4, 1.0, 1.0, seed=1).drawn(2, 3, 8, 8)
    assert drawn == Mixing(4, 1.0, 1.0, seed=1).drawn(2, 3, 8, 8)
    others = [Mixing(4, 1.0, 1.0, seed=2).drawn(2, 3, 8, 8), Mixing(4, 1.0, 1.0, seed=1).drawn(1, 3, 8, 8),
              Mixing(4, 1.0, 1.0, seed=1).drawn(2, 4, 8, 8), Mixing(4, 1.0, 1.0, seed=1, rank=1).drawn(2, 3, 8, 8)]
    assert drawn not in others


def test_shares_boxes_and_switches_are_drawn_as_often_as_they_should() -> None:
    several = [Mixing(4, 0.4, 1.0, probability=0.75, switch=0.25).drawn(0, step, 32, 32) for step in range(4000)]
    mixups = [drawn.share for drawn in several if drawn.box is None and drawn.share < 1]
    cuts = [drawn for drawn in several if drawn.box is not None]
    assert len(mixups) / 4000 == pytest.approx(0.75 * 0.75, abs=0.03)
    assert len(cuts) / 4000 == pytest.approx(0.75 * 0.25, abs=0.03)
    shares = torch.tensor(mixups)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(0.4, 0.4)
    for share, (top, bottom, left, right) in cuts:  # type: ignore[misc]
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / 1024)


def test_a_batch_that_is_not_mixed_has_probabilities_too() -> None:
    given = batch()
    found = Mixing(4, 1.0, probability=0.0)(given, 0, 0)
    assert found.images is given.images
    assert found.targets is not None
    assert found.targets.argmax(1).tolist() == [0, 1, 2, 3, 0, 1]


def test_views_are_mixed_alike_and_unlabelled_images_stay_so() -> None:
    mixing, given = Mixing(4, cutmix=1.0), batch(views=1, labelled=False)
    found = mixing(given, 0, 1)
    assert found.targets is None
    assert torch.equal(found.views[0], mixed(given.views[0], mixing.drawn(0, 1, 8, 10)))
    assert not torch.equal(found.views[0], given.views[0])


def test_an_epoch_is_mixed_and_goes_on_from_any_step(split: Callable[..., Split]) -> None:
    batches = Batches(split(20), 6, train=True, mixing=Mixing(3, 0.8, 1.0))
    whole = list(batches.epoch(2))
    assert all(b.targets is not None and b.targets.shape == (len(b), 3) for b in whole)
    for start in (1, 3):
        for once, again in zip(whole[start:], batches.epoch(2, start), strict=True):
            assert torch.equal(once.images, again.images)
            assert torch.equal(once.targets, again.targets)
    plain = next(Batches(split(20), 6, train=True).epoch(2))
    assert not torch.equal(whole[0].images, plain.images)
    assert batches.at(0).targets.ndim == 1  # held-out images are not mixed
    assert next(Batches(split(20), 6, train=False, mixing=Mixing(3, 1.0)).epoch()).targets.ndim == 1
