"""KD, structured distillation, IFVD, CWD on maps, against plain formulas over pixels; taps of ReviewKD and DistPro."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.config import MethodSettings
from limbeck.contract.trial import CLASSES, TASKS, batch, tiny
from limbeck.method import Method, Setting
from limbeck.seen import Clock
from limbeck.wiring import build_stages

CLOCK = Clock(5, 20, 10)
LABELS = batch(3, task="segmentation").targets  # (3, 16, 24), 255 where there is none
DEPTHS = batch(3, task="depth").targets.double()
Known = dict[str, dict[str, Tensor]]


def made(name: str, task: str = "segmentation", **options: Any) -> Method:
    kind = {"segmentation": "scene", "depth": "room"}[task]
    setting = Setting(TASKS[task], tuple("abcd"), None, torch.arange(0), batch(2, task=task))
    settings = MethodSettings(name=name, **options)
    (stage,) = build_stages(settings, tiny(kind=kind), tiny(12, seed=1, kind=kind), setting)
    return stage.method.double()


def known(**taps: int) -> Known:
    """Random outputs of both, of so many channels: 4 x 6 places of the student, 8 x 12 of the teacher."""
    generator = torch.Generator().manual_seed(0)

    def drawn(channels: int, rows: int, columns: int) -> Tensor:
        return torch.randn(3, channels, rows, columns, generator=generator, dtype=torch.float64)

    return {"student": {tap: drawn(channels, 4, 6) for tap, channels in taps.items()},
            "teacher": {tap: drawn(channels, 8, 12) for tap, channels in taps.items()}}


def values(method: Method, outputs: Known, targets: Tensor) -> dict[str, Tensor]:
    """Weighted values of all terms but the supervised one."""
    images = batch(3, task="segmentation" if targets is LABELS else "depth")
    images.__dict__["targets"] = targets
    seen = method.see(images, CLOCK, known=outputs)
    weights = dict(zip(method.process.names, method.process.weights(CLOCK).tolist(), strict=True))
    found = method(seen, frozenset(method.terms) - {"ce"})
    return {name: weights[name] * loss for name, loss in found.items()}


def larger(x: Tensor) -> Tensor:
    """A student's map at the teacher's size."""
    return F.interpolate(x, (8, 12), mode="bilinear")


def counted(everywhere: bool) -> list[tuple[int, int, int]]:
    """Places of 8 x 12, each standing for the label in the middle of its 2 x 2."""
    places = itertools.product(range(3), range(8), range(12))
    return [(n, y, x) for n, y, x in places if everywhere or LABELS[n, 2 * y + 1, 2 * x + 1] != 255]


def mean_kl(outputs: Known, temperature: float = 1.0, *, everywhere: bool = False) -> Tensor:
    s, t = larger(outputs["student"]["logits"]) / temperature, outputs["teacher"]["logits"] / temperature
    each = [(t[n, :, y, x].softmax(0) * (t[n, :, y, x].log_softmax(0) - s[n, :, y, x].log_softmax(0))).sum()
            for n, y, x in counted(everywhere)]
    return temperature**2 * torch.stack(each).mean()


@pytest.mark.parametrize("everywhere", [False, True])
def test_kd_is_the_mean_over_pixels_that_count(everywhere: bool) -> None:
    outputs = known(logits=CLASSES)
    found = values(made("kd", temperature=2.0, everywhere=everywhere), outputs, LABELS)
    torch.testing.assert_close(found, {"kl": 0.9 * mean_kl(outputs, 2.0, everywhere=everywhere)})


@pytest.mark.parametrize("everywhere", [False, True])
def test_kd_on_depth_takes_the_teachers_metres_as_measured(everywhere: bool) -> None:
    outputs = known(logits=1)
    gap = (larger(outputs["student"]["logits"]) - outputs["teacher"]["logits"]).abs()[:, 0]
    counts = DEPTHS[:, 1::2, 1::2] > 0
    expected = gap.mean() if everywhere else gap[counts].mean()
    found = values(made("kd", "depth", everywhere=everywhere), outputs, DEPTHS)
    torch.testing.assert_close(found, {"l1": 0.9 * expected})


@pytest.mark.parametrize("everywhere", [False, True])
def test_structured_distillation(everywhere: bool) -> None:
    outputs = known(logits=CLASSES, psp=5)
    found = values(made("structured", everywhere=everywhere), outputs, LABELS)

    def affinities(x: Tensor) -> Tensor:
        """Of the 2 x 2 patches of a map of 4 x 6."""
        nodes = F.normalize(F.max_pool2d(x, (2, 3)).flatten(2), dim=1)
        return torch.einsum("nci,ncj->nij", nodes, nodes)

    pair = affinities(outputs["student"]["psp"]) - affinities(F.avg_pool2d(outputs["teacher"]["psp"], 2))
    expected = {"pixel": 80 * mean_kl(outputs, everywhere=everywhere), "pair": 0.5 * pair.square().sum() / 4**2 / 3}
    torch.testing.assert_close(found, expected)


def cosines(features: Tensor, labels: Tensor) -> Tensor:
    """Of every labelled place's feature with the mean of its class in the image; 1 where there is no label."""
    result = torch.ones(features[:, 0].shape, dtype=features.dtype)
    for n, c in itertools.product(range(len(features)), range(CLASSES)):
        here = labels[n] == c
        if here.any():
            mean = features[n][:, here].mean(1, keepdim=True)
            result[n][here] = F.cosine_similarity(features[n][:, here], mean, dim=0)
    return result


@pytest.mark.parametrize("everywhere", [False, True])
def test_ifvd(everywhere: bool) -> None:
    outputs = known(logits=CLASSES, psp=5)
    found = values(made("ifvd", everywhere=everywhere), outputs, LABELS)
    labels = LABELS[:, ::4, ::4]
    gap = (cosines(outputs["student"]["psp"], labels)
           - cosines(F.avg_pool2d(outputs["teacher"]["psp"], 2), labels)).square()
    expected = {"variation": 200 * (gap.mean() if everywhere else gap[labels != 255].mean()),
                "kl": 10 / CLASSES * mean_kl(outputs, everywhere=everywhere)}
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("everywhere", [False, True])
def test_cwd_of_logits(everywhere: bool) -> None:
    outputs = known(logits=CLASSES)
    found = values(made("cwd", everywhere=everywhere), outputs, LABELS)
    s, t = larger(outputs["student"]["logits"]) / 4, outputs["teacher"]["logits"] / 4
    places, total = counted(everywhere), torch.zeros((), dtype=torch.float64)
    for n, c in itertools.product(range(3), range(CLASSES)):
        own, other = (torch.stack([side[m, c, y, x] for m, y, x in places if m == n]) for side in (s, t))
        total += (other.softmax(0) * (other.log_softmax(0) - own.log_softmax(0))).sum() / (3 * CLASSES)
    torch.testing.assert_close(found, {"logits": 3 * 4**2 * total})


def test_cwd_of_features_learns_a_connector() -> None:
    method = made("cwd", form="feature")
    term = method.terms["feature"]
    assert term.reads == ("student.psp", "teacher.psp")
    shapes = [tuple(p.shape) for p in term.parameters()]
    assert shapes == [(12, 8, 1, 1), (12,), (12,)]
    found = values(method, {"student": known(psp=8)["student"], "teacher": known(psp=12)["teacher"]}, LABELS)
    assert found["feature"] > 0
    assert method.process.weights(CLOCK).tolist() == [1.0, 50.0]


def test_another_tap_can_be_chosen() -> None:
    assert made("ifvd", tap="stage3").terms["variation"].reads == ("student.stage3", "teacher.stage3")


def test_reviewkd_reviews_the_pyramid_in_place_of_the_pooled_feature() -> None:
    assert made("reviewkd").members["review"].reads == (
        "student.stage1", "student.stage2", "student.stage3", "student.psp")
    assert made("reviewkd", "depth").members["review"].reads == ("student.stage1", "student.stage2", "student.stage3")


def test_distpros_pathways_on_maps() -> None:
    taps = ("1", "2", "3", "psp")
    expected = [f"t{source}>s{own}/complex" for i, source in enumerate(taps) for own in taps[i:]]
    assert list(made("distpro").terms) == ["ce", *expected]
    assert list(made("distpro", "depth").terms) == ["ce", *(name for name in expected if "psp" not in name)]
    assert len(made("distpro", space="paper27").terms) == 28


def test_transforms_reach_maps_that_are_not_square() -> None:
    method = made("distpro", teacher_taps=["stage1"], student_taps=["stage3"])
    seen = method.see(batch(2, task="segmentation"), CLOCK)
    seen.batch.__dict__["images"] = seen.batch.images.double()
    own, source = method.terms["t1>s3/complex"].sides(seen)
    assert own.shape == source.shape == (2, 12, 16, 24)
