"""FT: a paraphraser learned first and frozen then, and a translator that meets its factors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from features_tiny import features, normed, parameters, total, weights_of
from methods_tiny import ce, setting, trainer
from torch import Tensor, nn

from limbeck.contract.trial import tiny
from limbeck.errors import Stopped
from limbeck.methods.ft import Paraphraser, ft
from limbeck.seen import Clock
from limbeck.training.optimizers import rate
from limbeck.training.trainer import Trainer


def run(x: Tensor, layers: nn.Sequential) -> Tensor:
    """Convolutions, norms by the batch and LeakyReLUs, written plainly."""
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            x = F.conv_transpose2d(x, layer.weight, layer.bias, padding=1)
        elif isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        else:
            x = normed(x) if isinstance(layer, nn.BatchNorm2d) else torch.where(x > 0, x, 0.1 * x)
    return x


def test_first_the_paraphraser_learns_to_be_understood():
    student, teacher = tiny(), tiny(12, seed=1)
    first, then = ft(student, teacher, setting())
    known = features(student, teacher, ["stage3"])
    found, x = total(first.method, known), known["teacher"]["stage3"]
    again = run(run(x, first.method.members["paraphraser"].encoder), first.method.terms["reconstruction"].connect)
    torch.testing.assert_close(found, (again - x).square().mean(), rtol=1e-6, atol=1e-6)
    assert [(stage.name, stage.length) for stage in (first, then)] == [("paraphraser", 1 / 8), ("train", 1)]
    assert then.method.frozen["paraphraser"].network is first.method.members["paraphraser"]
    assert set(then.method.members) == {"student"}


@pytest.mark.parametrize(("mode", "weight"), [("repdistiller", 200.0), ("paper", 500.0)])
def test_then_the_student_meets_its_factors(mode, weight):
    student, teacher = tiny(), tiny(12, seed=1)
    _, then = ft(student, teacher, setting(), mode=mode, weight=weight)
    then.method.frozen["paraphraser"].double()
    known = features(student, teacher, ["stage3"])
    found = total(then.method, known)
    factors = [run(known["student"]["stage3"], then.method.terms["factor"].connect[1]),
               run(known["teacher"]["stage3"], then.method.frozen["paraphraser"].network.encoder)]
    if mode == "repdistiller":
        factors = [f.square().mean(1) for f in factors]
    s, t = (f.flatten(1) / f.flatten(1).norm(dim=1, keepdim=True) for f in factors)
    expected = ce(known["student"]["logits"]) + weight * (s - t).abs().mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rate", "width"), [(0.5, 12), (0.25, 6), (0.01, 1)])
def test_networks_are_as_large_as_published(rate, width):
    first, then = ft(tiny(), tiny(12), setting(), rate=rate)

    def convolutions(*widths: int) -> int:
        return sum(9 * a * b + b for a, b in pairwise(widths))

    assert parameters(first.method.members["paraphraser"]) == convolutions(24, 24, width, width)
    assert parameters(first.method.terms["reconstruction"]) == convolutions(width, width, 24, 24)
    assert parameters(then.method.terms["factor"]) == convolutions(16, 16, width, width) + 2 * (16 + width + width)


def test_joint_trains_the_paraphraser_beside_the_student():
    method = ft(tiny(), tiny(12), setting(), form="joint")
    assert weights_of(method) == {"ce": 1, "factor": 200, "reconstruction": 1}
    assert set(method.members) == {"student", "paraphraser"}
    assert set(method.frozen) == {"teacher"}


def test_the_first_stage_runs_at_a_fifth_of_the_rate_throughout():
    first, _ = ft(tiny(), tiny(12), setting())
    assert {rate(first.schedule, Clock(step, 20, 5)) for step in range(20)} == {0.2}
    faster, _ = ft(tiny(), tiny(12), setting(), init_rate=1.0)
    assert rate(faster.schedule, Clock(0, 20, 5)) == 1


class AfterOne(Trainer):
    """Notes the paraphraser as the first stage leaves it, and is asked to stop within the second."""

    stops = False

    def _prepare(self, number, shared, own) -> None:
        super()._prepare(number, shared, own)
        if number == 1:
            self.learned = [p.detach().clone() for p in self.stages[0].method.members["paraphraser"].parameters()]

    def _save_if_due(self) -> None:
        self.interrupts.asked = self.stops and self.stage == 1
        super()._save_if_due()


class StopsInTheSecond(AfterOne):
    """The same, stopping."""

    stops = True


def built():
    torch.manual_seed(0)
    return ft(tiny(), tiny(12, seed=1), setting(), init_length=1.0)


def paraphraser(training: Trainer) -> list[Tensor]:
    return list(training.stages[0].method.members["paraphraser"].parameters())


def test_it_learns_in_the_first_stage_alone_and_survives_a_stop_in_the_second(tmp_path: Path):
    start = [p.detach().clone() for p in built()[0].method.members["paraphraser"].parameters()]
    whole = trainer(built(), tmp_path / "whole", epochs=2, kind=AfterOne)
    whole.fit()
    assert not any(torch.equal(p, q) for p, q in zip(start, whole.learned, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(paraphraser(whole), whole.learned, strict=True))
    with pytest.raises(Stopped):
        trainer(built(), tmp_path / "parts", epochs=2, kind=StopsInTheSecond).fit()
    resumed = trainer(built(), tmp_path / "parts", epochs=2)
    resumed.fit()
    assert all(torch.equal(p, q) for p, q in zip(paraphraser(resumed), whole.learned, strict=True))
    state = whole.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.method.state_dict().items())


def test_the_untrained_student_is_left_alone_by_the_first_stage(tmp_path: Path):
    stages = built()
    student = stages[0].method.student()
    before = {name: value.clone() for name, value in student.module.state_dict().items()}
    trainer(stages[:1], tmp_path).fit()
    assert all(torch.equal(value, before[name]) for name, value in student.module.state_dict().items())


def test_a_paraphraser_feels_nothing_of_its_teacher():
    member = Paraphraser("teacher.stage3", 8, 4)
    assert member.reads == ("teacher.stage3",)
    assert [type(layer) for layer in member.encoder] == [nn.Conv2d, nn.LeakyReLU] * 3
