"""Strong augmentation against Pillow, one image and one operation at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

from limbeck.data import Augmentation, Strong, Views
from limbeck.data.strong import FILL, OPERATIONS, cut_out, operate
from limbeck.errors import Mistake
from limbeck.jobs.parts import Parts

LARGEST = 1 - 2**-24  # the largest number that torch.rand draws
AMOUNTS = [0.0, 0.2, 0.37, 0.5, 0.81, LARGEST]


def affine(image: Image.Image, *numbers: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, numbers)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, u: ImageOps.autocontrast(image),
    "brightness": lambda image, u: ImageEnhance.Brightness(image).enhance(0.05 + 0.9 * u),
    "color": lambda image, u: ImageEnhance.Color(image).enhance(0.05 + 0.9 * u),
    "contrast": lambda image, u: ImageEnhance.Contrast(image).enhance(0.05 + 0.9 * u),
    "equalize": lambda image, u: ImageOps.equalize(image),
    "identity": lambda image, u: image,
    "posterize": lambda image, u: ImageOps.posterize(image, int(4 + 4 * u)),
    "rotate": lambda image, u: image.rotate(60 * u - 30),
    "sharpness": lambda image, u: ImageEnhance.Sharpness(image).enhance(0.05 + 0.9 * u),
    "shear-x": lambda image, u: affine(image, 1, 0.6 * u - 0.3, 0, 0, 1, 0),
    "shear-y": lambda image, u: affine(image, 1, 0, 0, 0.6 * u - 0.3, 1, 0),
    "solarize": lambda image, u: ImageOps.solarize(image, 256 * u),
    "translate-x": lambda image, u: affine(image, 1, 0, (0.6 * u - 0.3) * image.width, 0, 1, 0),
    "translate-y": lambda image, u: affine(image, 1, 0, 0, 0, 1, (0.6 * u - 0.3) * image.height),
}
MOVES = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")


def pictures(noise: Callable[..., Tensor]) -> Tensor:
    """Noise, a faint gradient, and one colour: uint8 (3, 3, 36, 32)."""
    faint = torch.arange(32) * 3 + torch.arange(36)[:, None] + torch.tensor([20, 60, 90])[:, None, None]
    return torch.stack([noise(1, 36, 32)[0], faint.to(torch.uint8), torch.full((3, 36, 32), 77, dtype=torch.uint8)])


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_equals_pillows(noise: Callable[..., Tensor], operation: str, amount: float) -> None:
    pixels = pictures(noise)
    kinds = torch.full((3,), OPERATIONS.index(operation))
    results = operate(pixels.float(), kinds, torch.full((3,), amount))
    assert torch.equal(results, results.round())
    for image, result in zip(pixels, results, strict=True):
        told = PILLOW[operation](Image.fromarray(image.permute(1, 2, 0).numpy()), amount)
        gap = (result - torch.from_numpy(np.array(told)).permute(2, 0, 1)).abs()
        if operation in MOVES:  # Pillow's coordinates are rounded to 2^-16: between two pixels they may fall either way
            assert (gap > 0).float().mean() < 0.02
        else:  # a product such as 100 x 0.23 may round to either side of a whole number
            assert gap.max() <= 1
            assert (gap > 0).float().mean() < 0.02


def test_each_image_gets_its_own_operation(noise: Callable[..., Tensor]) -> None:
    levels = (noise(len(OPERATIONS), 24, 24) // 2 + 40).float()
    amounts = torch.linspace(0.05, 0.3, len(OPERATIONS))
    together = operate(levels, torch.arange(len(OPERATIONS)), amounts)
    for kind in range(len(OPERATIONS)):
        alone = operate(levels[kind:kind + 1], torch.tensor([kind]), amounts[kind:kind + 1])
        assert torch.equal(together[kind:kind + 1], alone)
        assert torch.equal(alone[0], levels[kind]) == (OPERATIONS[kind] == "identity")


@pytest.mark.parametrize("draws", [(0.9, 0.5, 0.5), (0.5, 0.0, LARGEST), (0.0, 0.3, 0.7), (LARGEST, LARGEST, 0.1)])
def test_the_patch_is_pillows_rectangle(noise: Callable[..., Tensor], draws: tuple[float, float, float]) -> None:
    pixels = noise(1, 20, 24)
    side, middle_y, middle_x = 0.5 * 24 * draws[0], 20 * draws[1], 24 * draws[2]
    left, top = int(max(0, middle_x - side / 2)), int(max(0, middle_y - side / 2))
    told = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    ImageDraw.Draw(told).rectangle((left, top, min(24, left + side), min(20, top + side)), tuple(map(int, FILL)))
    result = cut_out(pixels.float(), torch.tensor([draws]))
    assert torch.equal(result[0], torch.from_numpy(np.array(told)).permute(2, 0, 1).float())


def test_a_strong_view_is_its_parts_in_order(noise: Callable[..., Tensor]) -> None:
    pixels, strong = noise(6, 16, 16), Strong(Augmentation("crop-flip", 2))
    draws = strong.draw(6, torch.Generator().manual_seed(4))
    assert draws.shape == (6, 3 + 7)
    levels = (strong.first(pixels, draws[:, :3]) * 255).round()
    for kind, amount in (draws[:, 3:5].unbind(1), draws[:, 5:7].unbind(1)):
        levels = operate(levels, (kind * 14).long(), amount)
    result = strong(pixels, draws)
    assert torch.equal(result, cut_out(levels, draws[:, 7:]) / 255)
    assert result.is_contiguous()
    assert result.min() >= 0
    assert result.max() <= 1


def test_all_operations_are_equally_likely() -> None:
    draws = Strong(Augmentation()).draw(14_000, torch.Generator().manual_seed(0))
    for column in (0, 2):
        counts = (draws[:, column] * 14).long().bincount(minlength=14)
        assert counts.shape == (14,)
        assert (counts - 1000).abs().max() < 5 * math.sqrt(1000)


def test_a_strong_view_stands_beside_the_images_own(noise: Callable[..., Tensor]) -> None:
    own = Augmentation("crop", 1)
    views, pixels = Views((own, Strong(own))), noise(5, 8, 8)
    draws = views.draw(5, torch.Generator().manual_seed(2))
    weak, strong = views(pixels, draws).unbind(1)
    assert torch.equal(weak, own(pixels, own.draw(5, torch.Generator().manual_seed(2))))
    assert torch.equal(strong, Strong(own)(pixels, draws[:, own.columns:]))


def test_methods_ask_for_views_by_kind() -> None:
    parts = Parts("distill", None, None, None)  # type: ignore[arg-type]
    own = Augmentation("crop", 2)
    parts.__dict__["data"] = SimpleNamespace(augmentation=own)
    assert parts.view("same") == own
    assert parts.view("strong") == Strong(own)
    with pytest.raises(Mistake, match=r"there is no kind of view 'stronger'; closest: \['strong'\]"):
        parts.view("stronger")
