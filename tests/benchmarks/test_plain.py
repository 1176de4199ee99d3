"""The hand-written loops of benchmarks/plain compute what limbeck's methods compute: a race over one distance."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import losses
from limbeck.networks import build

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from plain.crd import CRD
from plain.data import SmallImages, loader
from plain.distpro import Retrain, Search
from plain.ffsd import FFSD, distance, kl
from plain.kd import DKD, KD
from plain.networks import with_features
from plain.reviewkd import ReviewKD, hcl

CLASSES = 10
IMAGES, TARGETS = torch.rand(4, 3, 16, 16), torch.tensor([0, 3, 3, 9])


def pair() -> Any:
    return with_features(build("resnet8", CLASSES)), with_features(build("resnet8", CLASSES))


JOBS: dict[str, Callable[[], Any]] = {
    "kd": lambda: KD(build("resnet8", CLASSES), build("resnet8", CLASSES)),
    "dkd": lambda: DKD(build("resnet8", CLASSES), build("resnet8", CLASSES)),
    "reviewkd": lambda: ReviewKD(*pair(), IMAGES), "crd": lambda: CRD(*pair(), IMAGES, 50),
    "ffsd": lambda: FFSD(lambda: pair()[0], [16, 32, 64], CLASSES), "retrain": lambda: Retrain(*pair(), IMAGES),
    "search": lambda: Search(*pair(), IMAGES, iter(lambda: (IMAGES, TARGETS, None), None))}


@pytest.mark.parametrize("name", JOBS)
def test_a_step_moves_the_student(name: str) -> None:
    job = JOBS[name]()
    student = job.leader if name == "ffsd" else job.student
    before = torch.cat([p.detach().flatten() for p in student.parameters()])
    index = torch.randint(50, (4, 9)) if name == "crd" else torch.arange(4)
    job.step(IMAGES, TARGETS, index)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert (torch.cat([p.detach().flatten() for p in student.parameters()]) != before).float().mean() > 0.5
    if name == "search":
        assert (job.raw != 1).all()


def test_losses_are_those_of_limbeck() -> None:
    student, teacher = torch.randn(2, 4, CLASSES, dtype=torch.float64)
    soft = losses.soft_kl(student, teacher, temperature=4.0)
    ce = torch.nn.functional.cross_entropy(student, TARGETS)
    ours = {"kd": 0.1 * ce + 0.9 * soft,
            "dkd": ce + losses.target_kl(student, teacher, TARGETS, temperature=4.0)
            + 8 * losses.nontarget_kl(student, teacher, TARGETS, temperature=4.0)}
    for name, value in ours.items():
        torch.testing.assert_close(JOBS[name]().loss(student, teacher, TARGETS), value, rtol=1e-6, atol=1e-8)
    maps = torch.randn(2, 4, 6, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(hcl(*maps), losses.hcl(*maps))
    torch.testing.assert_close(distance(*maps), losses.unit_mse(*maps))
    torch.testing.assert_close(kl(student, teacher), partial(losses.soft_kl, temperature=2.0)(student, teacher))
    target, shifted = FFSD.diverse(maps[0])
    torch.testing.assert_close(target, losses.diversity_target(maps[0]))
    torch.testing.assert_close(shifted, losses.diversity_feature(maps[0]))


def test_the_loader_gives_places_or_negatives_of_other_classes() -> None:
    pixels, labels = torch.randint(256, (12, 3, 32, 32), dtype=torch.uint8), torch.arange(12) % 3
    ((images, targets, index),) = loader(SmallImages(pixels, labels), 6, 1, workers=0)
    assert images.shape == (6, 3, 32, 32)
    assert (labels[index] == targets).all()
    ((_, targets, index),) = loader(SmallImages(pixels, labels, negatives=5), 6, 1, workers=0)
    assert (labels[index[:, 0]] == targets).all()
    assert (labels[index[:, 1:]] != targets[:, None]).all()
