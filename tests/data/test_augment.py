"""Augmentation of whole batches against plain formulations, one image at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.data.augment import COLUMNS, TRIES, Augmentation, Kind, resample, resized_boxes

LARGEST = 1 - 2**-24  # the largest number that torch.rand draws


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(("height", "width", "padding"), [(8, 8, 1), (32, 32, 4), (5, 9, 3), (6, 6, 0)])
@pytest.mark.parametrize("kind", ["crop", "crop-flip"])
def test_crop_equals_one_image_at_a_time(noise: Callable[..., Tensor], kind: Kind, height: int, width: int,
                                         padding: int, mode: str) -> None:
    pixels = noise(40, height, width)
    augmentation = Augmentation(kind, padding, mode)  # type: ignore[arg-type]
    draws = augmentation.draw(40, torch.Generator().manual_seed(1))
    images = augmentation(pixels, draws)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    for image, result, drawn in zip(pixels.numpy(), images, draws, strict=True):
        y, x = (int(u * (2 * padding + 1)) for u in drawn[:2])
        image = image[:, :, ::-1] if kind == "crop-flip" and drawn[2] < 0.5 else image
        around = ((0, 0), (padding, padding), (padding, padding))
        padded = np.pad(image, around, mode="reflect" if mode == "reflect" else "constant")
        expected = padded[:, y:y + height, x:x + width].astype(np.float32) / np.float32(255)
        assert np.array_equal(result.numpy(), expected)


@pytest.mark.parametrize("padding", range(0, 33))
@pytest.mark.parametrize("number", [0.0, LARGEST])
def test_the_furthest_windows_lie_within(padding: int, number: float) -> None:
    pixels = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    images = Augmentation("crop", padding)(pixels, torch.full((2, 2), number))
    shift = padding if number else -padding
    expected = pixels.float() / 255 if shift == 0 else torch.zeros(2, 3, 2, 2)
    if abs(shift) == 1:
        here, there = (0, 1) if shift == 1 else (1, 0)
        expected[:, :, here, here] = pixels[:, :, there, there] / 255
    assert torch.equal(images, expected)


def test_all_windows_and_both_sides_are_equally_likely() -> None:
    augmentation = Augmentation("crop-flip", 1)
    pixels = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    pixels[0, 0, 1, 1] = 255
    pixels[0, 1, 1, 0] = 255
    seen = augmentation(pixels.expand(9000, -1, -1, -1), augmentation.draw(9000, torch.Generator().manual_seed(0)))
    assert torch.allclose(seen[:, 0].mean(0), torch.full((3, 3), 1 / 9), atol=0.015)
    assert seen[:, 1].sum(dim=(1, 2)).mean() == pytest.approx(2 / 3, abs=0.02)  # a mark at the edge may fall off it


def test_resample_equals_torch_antialiased(noise: Callable[..., Tensor]) -> None:
    pixels = noise(6, 40, 30)
    boxes = torch.tensor([[0, 0, 40, 30], [3, 4, 20, 20], [10, 0, 7, 5], [39, 29, 1, 1], [0, 5, 40, 8], [1, 1, 16, 24]])
    flip = torch.tensor([False, True, False, True, True, False])
    result = resample(pixels, boxes, flip, (16, 24))
    for image, (top, left, h, w), mirrored, out in zip(pixels, boxes.tolist(), flip, result, strict=True):
        box = image[None, :, top:top + h, left:left + w].float()
        expected = F.interpolate(box, (16, 24), mode="bilinear", antialias=True, align_corners=False)[0]
        torch.testing.assert_close(out, expected.flip(2) if mirrored else expected, atol=2e-3, rtol=0)


def test_resized_crops_have_the_range_and_size_of_images(noise: Callable[..., Tensor]) -> None:
    white = torch.full((64, 3, 20, 12), 255, dtype=torch.uint8)
    augmentation = Augmentation("resized-crop")
    images = augmentation(white, augmentation.draw(64, torch.Generator().manual_seed(0)))
    assert images.shape == white.shape
    assert images.is_contiguous()
    assert images.max() <= 1
    torch.testing.assert_close(images, torch.ones_like(images))


def test_boxes_are_as_asked() -> None:
    draws = torch.rand(5000, COLUMNS["resized-crop"], generator=torch.Generator().manual_seed(0))
    height, width = torch.full((5000,), 300), torch.full((5000,), 400)
    top, left, h, w = resized_boxes(draws, height, width).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    area, aspect = h * w / 120_000, w / h
    assert 0.079 < area.min() < 0.1
    assert 0.95 < area.max() <= 1
    assert 0.74 < aspect.min() < 0.78
    assert 1.28 < aspect.max() < 1.35
    assert aspect.log().mean().abs() < 0.03  # 3:4 is as likely as 4:3; nearly so, as wide boxes fit a wide image better
    assert ((left == 0) | (left + w == width)).float().mean() < 0.2


def test_first_box_that_fits_is_taken_and_others_are_cut() -> None:
    draws = torch.full((2, COLUMNS["resized-crop"]), LARGEST)  # all of the area, 4:3, at the lower right
    draws[1, 3], draws[1, TRIES + 3] = 0.0, 0.5                # but the fourth try of the second is small and square
    assert resized_boxes(draws, 100, 100).tolist() == [[13, 0, 87, 100], [72, 72, 28, 28]]
    assert resized_boxes(draws[:1], 2, 400).tolist() == [[0, 367, 2, 33]]


def test_no_augmentation_is_a_division(noise: Callable[..., Tensor]) -> None:
    pixels = noise(3)
    assert torch.equal(Augmentation()(pixels, torch.empty(3, 0)), pixels / 255)
