"""A step in pieces is the step of the whole batch, where losses are means over images and no batch norm sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from core_tiny import CLASSES, SIZE, batch, network
from torch import Tensor, nn

from limbeck.config import OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.data import Batches, Split
from limbeck.data.images import Images
from limbeck.errors import Mistake
from limbeck.method import Companion, Method, Stage, Turn
from limbeck.process import Scheduled
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.seen import Clock, Seen
from limbeck.tasks.classification import Classification
from limbeck.terms import Match, Supervise, Term
from limbeck.training import engine
from limbeck.training.trainer import Trainer
from limbeck.training.turns import pieces


class Remembers(Term):
    """A term that keeps what it saw after each step."""

    searchable = False

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.owner, self.found = ("student.logits",), "student", []

    def forward(self, seen: Seen) -> Tensor:
        return seen["student.logits"].square().mean()

    def after_step(self, seen: Seen, clock: Clock) -> None:
        self.found.append((len(seen.batch), seen["student.logits"].clone()))


def flat(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES))


def trained(folder: Path, accumulate: int, *, turns: bool = False, companion: Companion | None = None) -> Trainer:
    """The loop after an epoch of three steps: of eight, eight and five images."""
    student, peer = network(flat(0)), network(flat(1))
    terms = {"ce": Supervise("student", Classification()), "peer": Supervise("peer", Classification()),
             "pull": Match("student.logits", "peer.logits", nn.functional.mse_loss), "memory": Remembers()}
    order = [Turn(frozenset({"ce", "pull", "memory"})), Turn(frozenset({"peer"}))] if turns else None
    method = Method({"student": student, "peer": peer}, terms, Scheduled(dict.fromkeys(terms, 0.5)), turns=order)
    drawn = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (21, *SIZE), generator=drawn, dtype=torch.uint8)
    split = Split.whole(Images(pixels), torch.randint(CLASSES, (21,), generator=drawn))
    run = Trainer([Stage(method)], Classification(), Batches(split, 8, train=True), {}, Run(folder),
                  TrainingSettings(epochs=1, precision="float32", accumulate=accumulate),
                  optimizer=OptimizerSettings(lr=0.1), schedule=ScheduleSettings(), companion=companion,
                  accelerator=engine.start("cpu"), display=Display(quiet=True))
    run._prepare(0, {}, {})
    run._epoch()
    return run


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.usefixtures("double")
def test_pieces_step_as_the_whole_does(count, turns, tmp_path):
    whole, cut = trained(tmp_path, 1, turns=turns), trained(tmp_path, count, turns=turns)
    assert whole.clock.step == cut.clock.step == 3
    for one, other in zip(whole.method.parameters(), cut.method.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert whole.averages.means() == pytest.approx(cut.averages.means(), rel=1e-10)


@pytest.mark.usefixtures("double")
def test_memories_see_the_whole_batch_once(tmp_path):
    whole, cut = (trained(tmp_path, count).method.terms["memory"].found for count in (1, 3))
    assert [images for images, _ in cut] == [8, 8, 5]
    for (_, one), (_, other) in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other)


def test_pieces_cover_a_batch_in_order():
    whole = replace(batch(images=5), views=(torch.rand(5, 3, 4, 4),), view_ids=torch.arange(5) * 7)
    cut = list(pieces(whole, 3))
    assert [(len(piece), *rest) for piece, *rest in cut] == [(2, 0.4, False), (2, 0.4, False), (1, 0.2, True)]
    for what in ("images", "targets", "index", "view_ids"):
        assert torch.equal(torch.cat([getattr(piece, what) for piece, *_ in cut]), getattr(whole, what))
    assert torch.equal(torch.cat([piece.views[0] for piece, *_ in cut]), whole.views[0])
    assert len(list(pieces(whole, 9))) == 5


def test_what_goes_beside_whole_steps_refuses_pieces(tmp_path):
    with pytest.raises(Mistake, match="looks through whole ones"):
        trained(tmp_path, 2, companion=object())
