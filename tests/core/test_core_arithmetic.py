"""Precision, layout and kernels are chosen by the device, said, and can each be set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from core_tiny import CLASSES, Plain, batch, clock, network, setting
from torch import nn

from limbeck.config import OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.data import Batches, Split
from limbeck.data.images import Images
from limbeck.method import Method, Stage
from limbeck.methods.kd import kd
from limbeck.methods.none import none
from limbeck.process import Scheduled
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.tasks.classification import Classification
from limbeck.terms import Supervise
from limbeck.training import engine
from limbeck.training.arithmetic import Arithmetic, slow_in_bf16
from limbeck.training.optimizers import build_optimizer
from limbeck.training.trainer import Trainer

CPU = torch.device("cpu")


def grouped() -> Plain:
    """A network with a grouped convolution."""
    module = Plain()
    module.stage2.conv = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False)
    return module


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that multiplies bf16 in hardware."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that does not."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.bfloat16), ("bf16", torch.bfloat16),
                                                  ("float32", torch.float32)])
def test_a_fast_cpu_takes_bf16_unless_float32_is_asked_for(precision, dtype):
    chosen = Arithmetic.chosen(TrainingSettings(precision=precision), CPU)
    with chosen.autocast():
        assert network(Plain()).logits(batch().images).dtype == dtype
    assert chosen.record() == {"precision": "float32" if dtype == torch.float32 else "bf16", "tf32": False,
                               "channels_last": True, "fold_teachers": dtype == torch.bfloat16,
                               "checkpoint_activations": False, "fused_optimizer": False}


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(("precision", "precise"), [("auto", True), ("bf16", False)])
def test_a_slow_cpu_takes_float32_unless_bf16_is_asked_for(precision, precise):
    assert Arithmetic.chosen(TrainingSettings(precision=precision), CPU).precise is precise


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_a_learning_network_of_grouped_convolutions_stays_in_float32_on_a_cpu_by_itself(precision, dtype):
    assert slow_in_bf16(grouped())
    assert not slow_in_bf16(Plain())
    chosen = Arithmetic.chosen(TrainingSettings(precision=precision), CPU)
    method = chosen.prepare(kd(network(grouped()), network(grouped()), setting()))
    seen = method.see(batch(), clock())
    with chosen.autocast():
        assert seen["student.logits"].dtype == dtype
        assert seen["teacher.logits"].dtype == torch.bfloat16  # its forward pass is faster in bf16
    assert ("student in float32" in chosen.told(method)) is (dtype == torch.float32)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_terms_parameters_and_optimiser_are_float32_in_any_precision(precision, tmp_path):
    trainer = one_step(tmp_path, TrainingSettings(epochs=1, precision=precision))
    assert {p.dtype for p in trainer.method.parameters()} == {torch.float32}
    assert {x.dtype for own in trainer.optimizer.state.values() for x in own.values()} == {torch.float32}
    assert all(mean.dtype == torch.float32 for mean in trainer.averages._sums.values())


def one_step(folder: Path, settings: TrainingSettings) -> Trainer:
    """The loop after a step of supervised training."""
    pixels = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    batches = Batches(Split.whole(Images(pixels), torch.arange(8) % CLASSES), 8, train=True)
    trainer = Trainer([Stage(none(network(Plain()), setting()))], Classification(), batches, {}, Run(folder), settings,
                      optimizer=OptimizerSettings(), schedule=ScheduleSettings(),
                      accelerator=engine.start("cpu"), display=Display(quiet=True))
    trainer._prepare(0, {}, {})
    trainer._step(next(batches.epoch()))
    return trainer


def test_the_layout_of_maps_can_be_left_alone(tmp_path):
    inner = one_step(tmp_path, TrainingSettings(precision="float32"))
    outer = one_step(tmp_path, TrainingSettings(precision="float32", channels_last=False))
    weights = [t.method.student().module.stage2.conv.weight for t in (inner, outer)]
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in weights] == [True, False]


def test_a_fused_optimiser_steps_parameters_whose_first_gradient_comes_late():
    settings, made = OptimizerSettings(lr=0.1), {}
    for fused in (False, True):
        torch.manual_seed(0)
        method = Method({"student": network(Plain())}, {"ce": Supervise("student", Classification())},
                        Scheduled({"ce": 1.0}))
        optimizer = build_optimizer(method, settings, {}, fused=fused)
        for late in (False, True, True):
            for number, parameter in enumerate(method.parameters()):
                gradient = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
                parameter.grad = gradient if late or number else None
            optimizer.step()
        made[fused] = list(method.parameters())
    for plain, fused in zip(made[False], made[True], strict=True):
        torch.testing.assert_close(plain, fused)
