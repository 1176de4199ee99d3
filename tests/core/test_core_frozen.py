"""Members that are finished: those that look at a frozen network may be frozen too."""

from __future__ import annotations

import pytest
import torch
from core_tiny import Plain, batch, clock, network
from torch import nn

from limbeck.config import OptimizerSettings
from limbeck.errors import Mistake
from limbeck.members import Frozen, Member
from limbeck.method import Method, Stage
from limbeck.process import Scheduled
from limbeck.seen import Outputs, Seen
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise
from limbeck.training.optimizers import build_optimizer


class Code(Member):
    """A convolution, norm and dropout on a layer of the teacher."""

    reads = ("teacher.stage2",)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.5))

    def forward(self, seen: Seen) -> Outputs:
        return {"code": self.layers(seen.detached(self.reads[0]))}


def method(code: Code) -> Method:
    match = Match("student.stage2", "code.code", nn.functional.mse_loss)
    return Method({"student": network(Plain())}, {"code": match}, Scheduled({"code": 1.0}),
                  frozen={"teacher": network(Plain()), "code": Frozen(code)})


def test_it_is_read_like_anyone_and_learns_nothing():
    code = Code()
    built = method(code).train()
    code.train()  # an earlier stage that trains it does this
    seen = built.see(batch(), clock())
    loss = built(seen, frozenset({"code"}))["code"]
    expected = code.eval()(seen)["code"]
    torch.testing.assert_close(loss, (seen["student.stage2"] - expected).square().mean())
    loss.backward()
    assert all(p.grad is None for p in code.parameters())
    assert code.layers[1].num_batches_tracked == 0
    assert built.owners().keys() == {"student"}
    assert not any(name.startswith("code") or "code.layers" in name for name in built.state_dict())


def test_what_it_reads_is_tapped_and_must_be_there():
    assert "teacher.stage2" in method(Code()).reads()
    code = Code()
    code.reads = ("teacher.stage7",)
    with pytest.raises(Mistake, match="no layer 'stage7'"):
        method(code)


def test_it_moves_with_the_method_and_its_fingerprint_follows_its_weights():
    code = Code()
    built = method(code)
    first = code.fingerprint()
    with torch.no_grad():
        code.layers[0].bias.add_(1)
    assert code.fingerprint() != first
    built.to(torch.float64)
    assert code.layers[0].weight.dtype == torch.float64


def test_an_optimiser_may_be_set_for_who_learns_in_another_stage_alone():
    code = Code()
    terms = {"ce": Supervise("student", Classification())}
    learning = Method({"student": network(Plain()), "code": code}, terms, Scheduled({"ce": 1.0}),
                      frozen={"teacher": network(Plain())})
    after, own = method(code), {"code": {"lr": 0.5}}
    for one, rates in ((learning, {"student": 0.1, "code": 0.5}), (after, {"student": 0.1})):
        optimizer = build_optimizer(one, OptimizerSettings(lr=0.1), own, stages=[Stage(learning), Stage(after)])
        assert {group["owner"]: group["lr"] for group in optimizer.param_groups} == rates
    with pytest.raises(Mistake, match=r"optimizers\.code is for no member that learns"):
        build_optimizer(after, OptimizerSettings(), own)
