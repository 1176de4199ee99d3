"""Measures of dense tasks: torchmetrics' own, plain formulas, batches and ranks in any number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from limbeck.tasks import Task
from limbeck.tasks.classification import Classification
from limbeck.tasks.depth import Depth
from limbeck.tasks.segmentation import VOID, Segmentation

CLASSES = 6


def scene(images: int = 7, void: float = 0.2, seed: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    """Logits (N, C, 9, 11) and label maps in which the last class occurs neither as answer nor as truth."""
    chance = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, 9, 11, generator=chance)
    logits[:, -1] = -9.0
    maps = torch.randint(classes - 1, (images, 9, 11), generator=chance)
    maps[torch.rand(maps.shape, generator=chance) < void] = VOID
    return logits, maps


def room(images: int = 7, missing: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predicted depth (N, 1, 9, 11), some of it below 0, and true depth; the last image has no reading at all."""
    chance = torch.Generator().manual_seed(seed)
    truth = 0.5 + 4 * torch.rand(images, 9, 11, generator=chance)
    answer = truth + torch.randn(truth.shape, generator=chance)
    truth[torch.rand(truth.shape, generator=chance) < missing] = 0
    truth[-1] = 0
    return answer[:, None], truth


def measured(task: Task, output: Tensor, targets: Tensor, sizes: list[int], ranks: int = 1) -> dict[str, float]:
    """Batches of these sizes dealt out to ranks, whose sums are then added."""
    meters = [task.meter() for _ in range(ranks)]
    for i, (out, target) in enumerate(zip(output.split(sizes), targets.split(sizes), strict=True)):
        meters[i % ranks].update(out, target)
    whole = task.meter()
    whole.sums = torch.stack([meter.sums for meter in meters]).sum(0)
    return whole.result()


@pytest.mark.parametrize(("sizes", "ranks"), [([7], 1), ([3, 3, 1], 1), ([2, 2, 2, 1], 2), ([1, 4, 1, 1], 3)])
def test_miou_is_torchmetrics(sizes: list[int], ranks: int) -> None:
    output, targets = scene()
    found = measured(Segmentation(CLASSES), output, targets, sizes, ranks)
    jaccard = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=VOID)
    accuracy = MulticlassAccuracy(CLASSES, average="micro", ignore_index=VOID)
    assert found["miou"] == pytest.approx(100 * jaccard(output, targets).item(), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(100 * accuracy(output, targets).item(), rel=1e-6)


def test_confusion_is_torchmetrics() -> None:
    output, targets = scene()
    meter = Segmentation(CLASSES).meter()
    meter.update(output, targets)
    expected = MulticlassConfusionMatrix(CLASSES, ignore_index=VOID)(output, targets)
    assert torch.equal(meter.sums[:-1].view(CLASSES, CLASSES).long(), expected)


def test_a_class_counts_where_it_is_only_predicted() -> None:
    """Half of class 0's pixels are taken for class 2, which nowhere is: (1/2 + 1 + 0) / 3."""
    targets = torch.tensor([[[0, 0, 1, 1, VOID]]])
    output = torch.nn.functional.one_hot(torch.tensor([[[0, 2, 1, 1, 0]]]), 4).permute(0, 3, 1, 2).float()
    found = measured(Segmentation(4), output, targets, [1])
    assert found["miou"] == pytest.approx(50)
    assert found["pixel_accuracy"] == pytest.approx(75)


def test_void_may_have_any_label() -> None:
    output, targets = scene()
    other = torch.where(targets == VOID, -1, targets)
    assert measured(Segmentation(CLASSES, -1), output, other, [7]) == measured(
        Segmentation(CLASSES), output, targets, [7])


def test_nothing_but_void_has_no_score_and_no_loss() -> None:
    output, targets = scene(void=2.0)
    assert measured(Segmentation(CLASSES), output, targets, [7]) == {
        "miou": 0, "pixel_accuracy": 0, "cross_entropy": 0}
    assert Segmentation(CLASSES).loss(output, targets) == 0


@pytest.mark.parametrize(("sizes", "ranks"), [([7], 1), ([3, 3, 1], 1), ([2, 2, 2, 1], 2), ([1, 4, 1, 1], 3)])
def test_errors_over_pixels_are_torchmetrics(sizes: list[int], ranks: int) -> None:
    output, targets = room()
    found = measured(Depth(), output, targets, sizes, ranks)
    valid = targets > 0
    p, y = output[:, 0][valid], targets[valid]
    assert found["pixel_rmse"] == pytest.approx(MeanSquaredError(squared=False)(p, y).item(), rel=1e-6)
    assert found["pixel_mae"] == pytest.approx(MeanAbsoluteError()(p, y).item(), rel=1e-6)


@pytest.mark.parametrize(("sizes", "ranks"), [([7], 1), ([3, 3, 1], 1), ([1, 4, 1, 1], 3)])
def test_errors_over_images_are_their_means(sizes: list[int], ranks: int) -> None:
    """Written plainly, image by image; the image without a reading is none of them."""
    output, targets = room()
    rows: dict[str, list[float]] = {}
    for answer, truth in zip(output[:, 0].double(), targets.double(), strict=True):
        pairs = [(p, y) for p, y in zip(answer.flatten().tolist(), truth.flatten().tolist(), strict=True) if y > 0]
        if not pairs:
            continue
        n = len(pairs)
        rows.setdefault("rmse", []).append(math.sqrt(sum((p - y) ** 2 for p, y in pairs) / n))
        rows.setdefault("mae", []).append(sum(abs(p - y) for p, y in pairs) / n)
        rows.setdefault("rel", []).append(sum(abs(p - y) / y for p, y in pairs) / n)
        for k in (1, 2, 3):
            near = sum(p > 0 and max(p / y, y / p) < 1.25**k for p, y in pairs)
            rows.setdefault(f"delta{k}", []).append(100 * near / n)
    found = measured(Depth(), output, targets, sizes, ranks)
    assert all(len(row) == 6 for row in rows.values())
    for name, row in rows.items():
        assert found[name] == pytest.approx(sum(row) / 6, rel=1e-9), name


def test_depth_without_a_reading_has_no_loss() -> None:
    output, targets = room()
    assert Depth().loss(output[-1:], targets[-1:]) == 0


def test_the_error_of_the_mean_is_what_a_teacher_must_beat() -> None:
    _, targets = room()
    mean = targets[targets > 0].mean()
    task = Depth()
    expected = measured(task, mean.expand(7, 1, 9, 11), targets, [7])["rmse"]
    assert task.guess(0, targets.split(3), 7) == pytest.approx(expected, rel=1e-6)
    assert Segmentation(5).guess(5, [targets], 7) == 20
    assert Classification().guess(4, [targets], 100) == pytest.approx(25 + 300 * math.sqrt(0.25 * 0.75 / 100))
