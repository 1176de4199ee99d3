"""Images and maps are changed together: what a pixel's colour says of its place, the map says as well."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dense_tiny import places
from torch import Tensor

from limbeck.data.joint import COLUMNS, Joint, at_nearest, bilinear, colored
from limbeck.data.sparse import sparse_samples

OUTSIDE = -1


def drawn(images: int, seed: int = 0) -> Tensor:
    return torch.rand(images, COLUMNS, generator=torch.Generator().manual_seed(seed))


def changed(joint: Joint, seed: int = 0, images: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    return joint(*places(images), drawn(images, seed), OUTSIDE)


@pytest.mark.parametrize("joint", [
    Joint((10, 12)), Joint((10, 12), mirror=True), Joint((10, 12), (0.5, 2.0), mirror=True),
    Joint((40, 20), (0.7, 2.1)), Joint(None, (1.0, 1.5), rotate=30.0, mirror=True),
    Joint((10, 12), (0.5, 2.0), rotate=180.0)], ids=str)
def test_image_and_map_move_together(joint: Joint) -> None:
    """The pixel that a map takes is the one nearest to the point whose colours the image mixes."""
    images, maps, _ = changed(joint)
    inside = maps != OUTSIDE
    assert inside.float().mean() > 0.1
    column, row = images[:, 0] * 255 / 8, images[:, 1] * 255 / 8
    assert ((column - maps % 64).abs()[inside] <= 0.5 + 1e-3).all()
    assert ((row - maps // 64).abs()[inside] <= 0.5 + 1e-3).all()
    assert (images[:, 2] > 0.99).eq(inside).all(), "outside is black, and void"


def test_without_a_scale_pixels_are_copied() -> None:
    pixels, maps = places(4)
    images, cut, scale = Joint((10, 12), mirror=True)(pixels, maps, drawn(4), OUTSIDE)
    assert (scale == 1).all()
    for i in range(4):
        top, left = divmod(int(cut[i].min()), 64)
        window = pixels[i, :, top:top + 10, left:left + 12].float() / 255
        expected = window.flip(2) if drawn(4)[i, 3] < 0.5 else window
        assert torch.equal(images[i], expected)
    assert 0 < (drawn(4)[:, 3] < 0.5).sum() < 4, "both cases must occur"


def test_nothing_turned_on_changes_nothing() -> None:
    pixels, maps = places(3)
    images, same, _ = Joint()(pixels, maps, drawn(3), OUTSIDE)
    assert torch.equal(images, pixels.float() / 255)
    assert torch.equal(same, maps)


def test_a_scaled_image_is_what_interpolate_gives() -> None:
    pixels, maps = torch.randint(256, (2, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)), \
        torch.zeros(2, 8, 10, dtype=torch.uint8)
    images, _, _ = Joint((16, 20), (2.0, 2.0))(pixels, maps, drawn(2), 255)
    expected = F.interpolate(pixels.float() / 255, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(images, expected)


def test_the_same_numbers_give_the_same_and_images_do_not_mix() -> None:
    joint = Joint((10, 12), (0.5, 2.0), 10.0, True, 0.4)
    pixels, maps = places(6)
    whole = joint(pixels, maps, drawn(6), OUTSIDE)
    part = joint(pixels[2:4], maps[2:4], drawn(6)[2:4], OUTSIDE)
    for all_, some in zip(whole, part, strict=True):
        assert torch.equal(all_[2:4], some)


def test_every_place_of_the_window_is_drawn() -> None:
    _, maps, _ = changed(Joint((23, 30)), images=200)
    assert sorted({divmod(int(one), 64) for one in maps[:, 0, 0]}) == [(y, x) for y in range(2) for x in range(3)]
    _, maps, _ = changed(Joint((20, 30), wander=False), images=3)
    assert {divmod(int(one), 64) for one in maps[:, 0, 0]} == {(2, 1)}


def test_colours_follow_torchvision() -> None:
    from torchvision.transforms.v2 import functional as tv

    images, factors = torch.rand(2, 3, 5, 6), torch.tensor([[0.7, 1.3, 0.6], [1.2, 0.8, 1.4]])
    for image, (brightness, contrast, saturation), found in zip(images, factors.tolist(), colored(images, factors),
                                                               strict=True):
        expected = tv.adjust_contrast(tv.adjust_brightness(image, brightness), contrast)
        expected = tv.adjust_saturation(expected, saturation)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_colours_change_images_only() -> None:
    plain, jittered = changed(Joint((10, 12), (0.5, 2.0))), changed(Joint((10, 12), (0.5, 2.0), jitter=0.4))
    assert not torch.equal(plain[0], jittered[0])
    assert torch.equal(plain[1], jittered[1])


def test_points_between_and_beyond_pixels() -> None:
    pixels = torch.tensor([[[[0, 100], [50, 200]]]], dtype=torch.uint8)
    y, x = torch.tensor([[[0.5, 1.0, 0.1]]]), torch.tensor([[[0.5, 1.0, 1.9]]])
    assert bilinear(pixels, y, x)[0, 0, 0].tolist() == pytest.approx([0, 87.5, 100])
    assert at_nearest(pixels[:, 0], y, x)[0, 0].tolist() == [0, 200, 100]


def test_so_many_readings_of_those_there_are() -> None:
    depth = torch.rand(3, 9, 11) + 0.5
    depth[0, 2:] = 0                       # 22 readings
    depth[1, 0, 1:], depth[1, 1:] = 0, 0   # one
    taken = sparse_samples(depth, torch.tensor([5, 6, 7]), 20)
    assert (taken > 0).flatten(1).sum(1).tolist() == [20, 1, 20]
    assert torch.equal(taken[taken > 0], depth[taken > 0])


def test_readings_depend_on_the_key_alone() -> None:
    depth = torch.ones(2, 9, 11)
    one = sparse_samples(depth, torch.tensor([3, 4]), 10)
    assert torch.equal(one[1:], sparse_samples(depth[1:], torch.tensor([4]), 10))
    assert not torch.equal(one[0], one[1])


def test_readings_lie_everywhere() -> None:
    """10,000 draws of 10 of 99 places: each is taken about 1,010 times, with a deviation of 30."""
    taken = sparse_samples(torch.ones(10_000, 9, 11), torch.arange(10_000), 10).sum(0)
    assert taken.sum() == 100_000
    assert (taken - taken.mean()).abs().max() < 5 * 30
