"""Finished networks run folded in bf16: the same function, by a copy that keeps every layer's name."""

from __future__ import annotations

import pytest
import torch
from core_tiny import CLASSES, SIZE, Plain, Residual, batch, clock, network, setting
from torch import Tensor, nn

from limbeck.config import TrainingSettings
from limbeck.members import Frozen
from limbeck.members.folding import folded
from limbeck.methods.kd import kd
from limbeck.seen import Seen
from limbeck.training.arithmetic import Arithmetic

CPU = torch.device("cpu")
DUMMY = torch.zeros(1, *SIZE)


def trained(module: nn.Module) -> nn.Module:
    """With running statistics and weights of batch norm that are not 0 and 1."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (part.bias.data, part.running_mean):
                tensor.normal_()
    return module.eval()


class Branching(Plain):
    """Asks what its images hold: no tracing gets through."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > -100 else -x)


class Shared(nn.Module):
    """A norm behind two convolutions, a convolution that someone else reads too, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        a = self.norms[0](self.one(x))
        b = self.two(x)
        c = self.norms[0](b) + self.norms[1](b)
        return self.head(a + self.norms[2](self.three(self.three(x))) + c)


@pytest.mark.parametrize("make", [Plain, Residual])
def test_it_says_the_same_without_the_norms(make):
    module = trained(make()).double()
    light = folded(module, DUMMY.double(), ())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in light.modules()) == 0
    images = batch().images.double()
    precise = light.double()  # rounded already
    assert (precise(images) - module(images)).abs().max() < 0.02 * module(images).abs().max()
    assert dict(light.named_modules()).keys() == dict(module.named_modules()).keys()


def test_an_answer_in_a_dictionary_is_looked_at_too():
    class Answering(Residual):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(x)}

    light = folded(trained(Answering()), DUMMY, ())
    assert sum(isinstance(part, nn.BatchNorm2d) for part in light.modules()) == 0


def test_folding_itself_is_exact(monkeypatch):
    monkeypatch.setattr(torch, "bfloat16", torch.float64)  # nothing is rounded
    module = trained(Residual()).double()
    light = folded(module, DUMMY.double(), ())
    torch.testing.assert_close(light(batch().images.double()), module(batch().images.double()))


def test_layers_that_are_read_stay_apart():
    light = folded(trained(Plain()), DUMMY, {"stage1.conv", "stage2.norm"})
    assert type(light.stage1.norm) is nn.BatchNorm2d
    assert type(light.stage2.norm) is nn.BatchNorm2d


def test_norms_whose_convolution_others_read_stay():
    module = trained(Shared())
    light = folded(module, DUMMY, ())
    assert [type(norm) for norm in light.norms] == [nn.BatchNorm2d] * 3


def test_a_network_that_cannot_be_traced_keeps_its_norms_and_rounds_its_weights():
    light = folded(trained(Branching()), DUMMY, ())
    assert type(light.stage1.norm) is nn.BatchNorm2d
    assert light.stage1.conv.weight.dtype == light.fc.weight.dtype == torch.bfloat16


def test_a_wrong_trace_is_found_out():
    class Doubled(Plain):
        """Traced on a stand-in it does less than on images."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.stage1.conv(x)
            x = self.stage1.norm(2 * x if isinstance(x, Tensor) else x)
            return self.fc(self.flatten(self.pool(self.stage2.conv(x))))

    light = folded(trained(Doubled()), DUMMY, ())
    assert type(light.stage1.norm) is nn.BatchNorm2d


def passes(frozen: Frozen) -> dict[str, Tensor]:
    """What it says under bf16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return frozen(Seen(batch(), clock(), {}))


@pytest.mark.parametrize("make", [Plain, Residual])
def test_taps_and_logits_are_as_near_to_float32_as_without(make):
    teacher = network(trained(make()))
    teacher.tap(["stage1", "stage2"])
    frozen = Frozen(teacher)
    exact = frozen(Seen(batch(), clock(), {}))
    plain = passes(frozen)
    frozen.lighten(True)
    light = passes(frozen)
    assert teacher._light is not None
    for tap, truth in exact.items():
        error, before = ((x[tap].float() - truth).norm() / truth.norm() for x in (light, plain))
        assert error < 2 * before + 1e-3
        assert not torch.equal(light[tap], plain[tap])  # or this test says nothing
    assert exact.keys() == light.keys()


def test_it_serves_bf16_alone():
    teacher = network(trained(Plain()))
    frozen = Frozen(teacher)
    plain = frozen(Seen(batch(), clock(), {}))["logits"]
    frozen.lighten(True)
    assert torch.equal(frozen(Seen(batch(), clock(), {}))["logits"], plain)
    assert teacher._light is None


def test_norms_by_the_batch_are_not_folded():
    teacher = network(trained(Plain()))
    frozen = Frozen(teacher, batch_statistics=True)
    plain = passes(frozen)["logits"]
    frozen.lighten(True)
    assert torch.equal(passes(frozen)["logits"], plain)


def test_new_taps_and_new_weights_make_a_new_copy():
    teacher = network(trained(Plain()))
    frozen = Frozen(teacher)
    frozen.lighten(True)
    passes(frozen)
    teacher.tap(["stage1"])
    assert "stage1" in passes(frozen)
    teacher.module.fc.bias.data += 100
    frozen.lighten(True)  # as a stage that follows does
    assert passes(frozen)["logits"].min() > 50


def test_a_network_that_asks_for_its_weights_as_they_were_runs_as_it_is():
    class Own(Plain):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())

    teacher = network(trained(Own()))
    frozen = Frozen(teacher)
    plain = passes(frozen)["logits"]
    frozen.lighten(True)
    assert torch.equal(passes(frozen)["logits"], plain)


@pytest.mark.parametrize(("settings", "wanted"), [({"precision": "bf16"}, True), ({"precision": "float32"}, False),
                                                  ({"precision": "bf16", "fold_teachers": False}, False),
                                                  ({"precision": "bf16", "compile": True}, False)])
def test_a_run_folds_its_teacher_in_bf16_and_never_its_student(settings, wanted):
    chosen = Arithmetic.chosen(TrainingSettings(**settings), CPU)
    method = chosen.prepare(kd(network(Plain()), network(trained(Plain())), setting()))
    assert chosen.record()["fold_teachers"] is wanted
    assert ("folded" in chosen.told(method)) is wanted
    with chosen.autocast():
        seen = method.see(batch(), clock())
        seen.outputs("teacher")
        with torch.no_grad():
            seen.outputs("student")
    assert (method.frozen["teacher"].network._light is not None) is wanted
    assert method.members["student"]._light is None
