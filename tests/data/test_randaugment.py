"""RandAugment and random erasing: operations against timm's, image by image; numbers drawn; whole epochs."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as theirs

from limbeck.config import DataSettings
from limbeck.data import Augmentation, Batches, Split, open_data
from limbeck.data.randaugment import CHOICES, RandAugment, done_to, erased

TIMMS = dict(zip(CHOICES, theirs._RAND_INCREASING_TRANSFORMS, strict=True))


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("magnitude", [0.0, 4.3, 9.0, 9.9])
@pytest.mark.parametrize("choice", CHOICES)
def test_operations_are_timms(choice: str, magnitude: float, negative: bool, noise: Callable[..., torch.Tensor],
                              monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(3, 16, 16) // 2 + 40  # with some contrast to gain
    monkeypatch.setattr(theirs, "random", random.Random())
    monkeypatch.setattr(theirs.random, "random", lambda: 1.0 if negative else 0.0)
    name, hparams = TIMMS[choice], {"translate_pct": 0.45, "img_mean": (0, 0, 0)}
    give = theirs.LEVEL_TO_ARG[name]
    arguments = give(magnitude, hparams) if give is not None else ()
    kwargs = {"fillcolor": (0, 0, 0), "resample": Image.Resampling.NEAREST}
    wanted = torch.stack([torch.from_numpy(np.array(theirs.NAME_TO_OP[name](
        Image.fromarray(image.permute(1, 2, 0).numpy()), *arguments, **kwargs))).permute(2, 0, 1) for image in pixels])
    every = torch.ones(3, dtype=torch.bool)
    found = done_to(pixels.float(), torch.full((3,), CHOICES.index(choice)), torch.full((3,), magnitude),
                    every & negative, every)
    moved = choice in ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
    away = (found - wanted.float()).abs() > (0 if moved else 1)
    assert away.float().mean() < (0.12 if moved else 0.001)  # Pillow rounds places at the edge of pixels otherwise
    assert torch.equal(done_to(pixels.float(), torch.full((3,), CHOICES.index(choice)), torch.full((3,), magnitude),
                               every, ~every), pixels.float())


def test_names_are_in_timms_order() -> None:
    short = {name: theirs_.removesuffix("Increasing").removesuffix("Rel").lower() for name, theirs_ in TIMMS.items()}
    assert all(name.replace("-", "") == other for name, other in short.items())


def test_boxes_are_erased_as_often_and_as_large_as_they_should(noise: Callable[..., torch.Tensor]) -> None:
    images = torch.zeros(3000, 3, 24, 32)
    draws = torch.rand(3000, 5, generator=torch.Generator().manual_seed(0))
    gone = (erased(images, draws, 0.25)[:, 0] > 0).float().mean((1, 2))
    assert (gone > 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert gone[gone > 0].min() > 0.01
    assert gone.max() < 0.37
    assert gone[gone > 0].mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)


def test_an_epoch_is_a_function_of_seed_and_place(split: Callable[..., Split]) -> None:
    augmentation = Augmentation("crop-flip", 2, after=RandAugment(9.0, 0.5))
    assert augmentation.columns == 3 + 8 + 5
    batches = Batches(split(12), 5, train=True, augmentation=augmentation)
    whole = [batch.images for batch in batches.epoch(3)]
    assert torch.equal(whole[1], next(batches.epoch(3, 1)).images)
    plain = Batches(split(12), 5, train=True, augmentation=Augmentation("crop-flip", 2))
    assert not torch.equal(whole[0], next(plain.epoch(3)).images)
    assert all(images.min() >= 0 and images.max() <= 1 for images in whole)


@pytest.mark.parametrize("in_memory", [True, False])
def test_settings_reach_images_in_memory_and_streamed_ones(in_memory: bool, photographs: Callable[..., Path]) -> None:
    folder = photographs(height=12, width=12)

    def first(**settings: object) -> torch.Tensor:
        data = open_data(DataSettings(source=str(folder), size=8, augment="resized-crop", in_memory=in_memory,
                                      **settings))
        return next(Batches(data.train, 8, train=True, augmentation=data.augmentation, workers=0).epoch()).images

    plain, changed = first(), first(rand_augment=9, erase=1.0)
    assert plain.shape == changed.shape
    assert not torch.equal(plain, changed)
    whole = RandAugment(None, 1.0)
    assert (whole.columns, RandAugment(None).columns) == (5, 0)
