"""Compiled steps are the plain ones; terms come and go without compiling again; nothing of it ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from limbeck.config import OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.contract.trial import Trial, built, split
from limbeck.data import Batches
from limbeck.method import Stage
from limbeck.process import Learned, Scheduled
from limbeck.progress import Display
from limbeck.runs import Run
from limbeck.search import Search
from limbeck.seen import Clock
from limbeck.tasks.classification import Classification
from limbeck.training import engine
from limbeck.training.compiling import Compiling, modules
from limbeck.training.trainer import Trainer

FITNET = Trial("fitnet")


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def trained(trial: Trial, folder: Path, *, weights: dict | None = None, **settings: object) -> Trainer:
    """The loop after two epochs of two steps of eight images and one of four."""
    method = built(trial)
    if weights:
        method = method.under(Scheduled(weights))
    run = Trainer([Stage(method)], Classification(), Batches(split(20), 8, train=True),
                  {"test": Batches(split(8), 8, train=False)}, Run(folder),
                  TrainingSettings(epochs=2, precision="float32", **settings), optimizer=OptimizerSettings(lr=0.02),
                  schedule=ScheduleSettings(), accelerator=engine.start("cpu"), display=Display(quiet=True))
    run.fit()
    return run


@pytest.mark.parametrize("trial", [Trial("kd"), FITNET], ids=lambda trial: trial.label)
def test_compiled_steps_are_the_plain_ones(trial, tmp_path):
    plain = trained(trial, tmp_path / "plain")
    ahead = trained(trial, tmp_path / "compiled", compile=True, compile_backend="aot_eager")
    for name, value in plain.method.state_dict().items():
        torch.testing.assert_close(ahead.method.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
    scores = [[r["cross_entropy"] for r in run.run.records() if r["kind"] == "test"] for run in (plain, ahead)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_terms_come_and_go_without_compiling_again(tmp_path, monkeypatch):
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.register_backend(counter, name="counted")
    rising = {"ce": 1.0, "hint": lambda clock: float(clock.epoch > 0)}
    found, end = [], Trainer._end_epoch

    def noted(self: Trainer, *given: object) -> None:
        found.append(counter.frame_count)
        end(self, *given)

    monkeypatch.setattr(Trainer, "_end_epoch", noted)
    trained(FITNET, tmp_path, weights=rising, compile=True, compile_backend="counted")
    assert found[0] > 0
    connector = 2  # first asked for in the second epoch, for each size of batch
    teacher = 2
    assert found[1] - found[0] <= connector + teacher


class Counting:
    """A backend that runs graphs as they are; counts them, and their runs."""

    graphs = runs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list) -> Callable[..., object]:
        self.graphs += 1

        def run(*given: object) -> object:
            self.runs += 1
            return graph(*given)
        return run


def searching(folder: Path, **settings: object) -> Trainer:
    """A search of DistPro's weights, two epochs of two steps of eight images, held-out batches as large."""
    method = built(Trial("distpro", {"transforms": ("c2",)}))
    method = method.under(Learned(method.process, method.searchable()))
    search = Search(method, Classification(), Batches(split(16), 8, train=True).at)
    return Trainer([Stage(method)], Classification(), Batches(split(16), 8, train=True), {}, Run(folder),
                   TrainingSettings(epochs=2, precision="float32", **settings), optimizer=OptimizerSettings(lr=0.02),
                   schedule=ScheduleSettings(), accelerator=engine.start("cpu"), companion=search,
                   display=Display(quiet=True))


def test_a_searchs_held_out_passes_are_those_of_compiled_steps(tmp_path, monkeypatch):
    plain, backend = searching(tmp_path / "plain"), Counting()
    plain.fit()
    torch._dynamo.register_backend(backend, name="counting")
    ahead = searching(tmp_path / "compiled", compile=True, compile_backend="counting")
    looked, graphs, look = [], [], Search._held_out_gradient

    def counted(self: Search, *given: object) -> object:
        before = backend.runs
        found = look(self, *given)
        looked.append(backend.runs - before)
        graphs.append(backend.graphs)
        return found

    monkeypatch.setattr(Search, "_held_out_gradient", counted)
    ahead.fit()
    rows = [torch.stack(run.companion.rows) for run in (plain, ahead)]
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-4, atol=1e-5)
    assert not torch.equal(rows[0][0], rows[0][-1])
    assert len(looked) == 4
    assert min(looked) > 0
    assert len(set(graphs)) == 1  # none is compiled for a held-out pass, or after the first step


def test_a_compiled_networks_taps_and_keys_stay(tmp_path):
    run = trained(FITNET, tmp_path, compile=True, compile_backend="aot_eager")
    plain = built(FITNET)
    assert list(run.method.state_dict()) == list(plain.state_dict())
    assert all(part._compiled_call_impl is not None for part in modules(run.method))
    assert run.method.student().deployed()._compiled_call_impl is None
    run.method.train()
    batch, outputs = next(run.batches.epoch()), []
    for method in (run.method, built(FITNET)):
        method.load_state_dict(run.method.state_dict())
        outputs.append(method.see(batch, Clock(0, 2, 1)).outputs("student"))
    assert outputs[0].keys() == outputs[1].keys() > {"logits"}
    for tap, value in outputs[1].items():
        torch.testing.assert_close(outputs[0][tap], value, rtol=1e-4, atol=1e-5, msg=tap)


def test_what_members_and_terms_call_is_compiled_and_not_the_method():
    method = built(FITNET)
    found = list(modules(method))
    assert method.student().module in found
    assert method.frozen["teacher"].network.module in found
    assert method.terms["hint"].connect in found
    assert method not in found
    assert len(found) == len({id(one) for one in found})


@pytest.mark.parametrize(("settings", "device", "on", "graphs"), [
    ({}, "cpu", False, False), ({}, "cuda", True, True), ({"compile": False}, "cuda", False, False),
    ({"compile": "on"}, "cpu", True, False), ({"cuda_graphs": False}, "cuda", True, False),
    ({"accumulate": 2}, "cuda", True, False), ({"checkpoint_activations": True}, "cuda", False, False)])
def test_a_gpu_compiles_by_itself(settings, device, on, graphs):
    chosen = Compiling.chosen(TrainingSettings(**settings), torch.device(device))
    assert (chosen.on, chosen.graphs) == (on, graphs)
    assert chosen.record() == {"compiled": on, "cuda_graphs": graphs}
