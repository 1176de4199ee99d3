"""Losses, predictions and pictures of dense tasks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.tasks import beats, worst
from limbeck.tasks.classification import Classification
from limbeck.tasks.depth import Depth
from limbeck.tasks.maps import palette, same_places
from limbeck.tasks.segmentation import VOID, Segmentation


def small(channels: int) -> Tensor:
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_cross_entropy_is_over_the_pixels_that_count() -> None:
    output = small(3).requires_grad_()
    targets = torch.randint(3, (2, 6, 8), generator=torch.Generator().manual_seed(1))
    targets[0, :4] = VOID
    large = F.interpolate(output, (6, 8), mode="bilinear", align_corners=False)
    each = [-F.log_softmax(large[n, :, i, j], 0)[targets[n, i, j]]
            for n in range(2) for i in range(6) for j in range(8) if targets[n, i, j] != VOID]
    loss = Segmentation(3).loss(output, targets)
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)
    (slope,) = torch.autograd.grad(loss, output)
    assert slope[0, :, 0].abs().max() == 0, "the upper rows feel void pixels only"
    assert slope[1].abs().min() > 0
    assert torch.equal(Segmentation(3).valid(targets), targets != VOID)


def test_l1_is_over_the_pixels_with_a_reading() -> None:
    output = small(1).requires_grad_()
    targets = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    targets[0, 1] = 0
    loss = Depth().loss(output, targets)
    expected = (output[:, 0] - targets)[targets > 0].abs().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert output.grad is not None
    assert torch.equal(output.grad[:, 0] == 0, targets == 0)


@pytest.mark.parametrize("reading", [torch.inf, torch.nan])
def test_what_is_predicted_where_nothing_counts_does_not_matter(reading: float) -> None:
    """An answer that is no number must not reach the loss through 0 times infinity."""
    output, targets = small(1), torch.ones(2, 3, 4, dtype=torch.float64)
    targets[0, 0, 0] = 0
    expected = Depth().loss(output, targets)
    output[0, 0, 0, 0] = reading
    assert Depth().loss(output, targets) == expected


def test_predictions_have_the_size_asked_for() -> None:
    logits, depth = small(3), small(1)
    labels = Segmentation(3).predict(logits, (9, 12))
    assert labels.shape == (2, 9, 12)
    assert labels.dtype == torch.int64
    assert torch.equal(labels[:, 1::3, 1::3], logits.argmax(1)), "the middle of every pixel keeps its class"
    assert Depth().predict(depth, (9, 12)).shape == (2, 9, 12)
    assert Classification().predict(torch.eye(4), (9, 12)).tolist() == [0, 1, 2, 3]
    assert (Segmentation(3).outputs(3), Depth().outputs(0), Classification().outputs(7)) == (3, 1, 7)


def test_a_map_of_another_size_takes_the_nearest() -> None:
    maps = torch.arange(12).view(1, 3, 4)
    assert torch.equal(same_places(maps, (6, 8)), maps.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert same_places(maps, (1, 1)).item() == 6
    assert same_places(maps, (3, 4)) is maps


def test_colors_differ_and_none_is_black() -> None:
    colors = palette(40)
    assert colors.shape == (40, 3)
    apart = torch.cdist(colors.float(), colors.float()) + 999 * torch.eye(40)
    assert apart.min() > 12
    assert colors.max(1).values.min() > 100


def test_pictures_of_classes() -> None:
    maps = torch.tensor([[[0, 1], [2, VOID]]])
    picture = Segmentation(3).draw(torch.zeros(1, 3, 4, 4), maps)
    assert picture.shape == (1, 3, 4, 4)
    assert picture.dtype == torch.uint8
    colors = palette(3)
    assert torch.equal(picture[0, :, 0, 0], colors[0])
    assert torch.equal(picture[0, :, 3, 0], colors[2])
    assert picture[0, :, 2:, 2:].max() == 0


def test_pictures_of_depth_share_one_scale() -> None:
    maps = torch.tensor([[[1.0, 4.0, 9.0, 0.0, -1.0]]])
    picture = Depth(farthest=4.0).draw(torch.zeros(1, 4, 1, 5), maps)[0, :, 0]
    near, far, further, none, below = picture.int().sum(0).tolist()
    assert near > far > 0
    assert far == further
    assert none == below == 0


def test_an_image_is_its_own_picture() -> None:
    images = torch.rand(2, 4, 3, 3)
    assert torch.equal(Classification().draw(images, torch.zeros(2)), (images[:, :3] * 255).round().byte())


@pytest.mark.parametrize(("task", "channels"), [(Depth(), 2), (Segmentation(3), None)])
def test_outputs_that_are_no_maps_are_refused(task: Depth | Segmentation, channels: int | None) -> None:
    output = torch.zeros(2, 3) if channels is None else torch.zeros(2, channels, 3, 3)
    with pytest.raises(ValueError, match=r"needs outputs \(N, "):
        task.loss(output, torch.ones(2, 3, 3, dtype=torch.int64))


def test_which_score_is_better() -> None:
    assert beats(2, 1, "higher")
    assert beats(1, 2, "lower")
    assert not beats(1, 1, "lower")
    assert beats(-5, worst("higher"), "higher")
    assert beats(5, worst("lower"), "lower")
