"""A profile of the first steps: every part named, shares that add up, and nothing left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck.contract.trial import Trial, built, trainer
from limbeck.training.profiling import TIMED, TRACED, WARM_UP, Profile, Watched, table


class Heard:
    """A display that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def profiled(folder: Path, *, search: bool = False, steps: int = 20) -> tuple[Heard, dict, nn.Module]:
    heard = Heard()
    run = trainer(built(Trial("kd")), folder, epochs=steps / 4, search=search)
    run.profile = Watched(folder / "profile", heard, torch.device("cpu"))
    run.fit()
    file = folder / "profile" / "profile.json"
    return heard, json.loads(file.read_text()) if file.is_file() else {}, run.method


def test_every_part_of_a_step_is_told(tmp_path):
    heard, record, _ = profiled(tmp_path)
    parts = record["seconds_per_step"]
    assert set(parts) == {"data", "student forward", "teacher forward", "term ce", "term kl", "backward", "optimiser",
                          "rest"}
    assert all(seconds > 0 for seconds in parts.values())
    assert heard.lines[:-1] == table(parts)
    assert heard.lines[-2].split()[-2:] == ["100.0", "%"]
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    assert {"teacher forward", "backward"} <= {event.get("name") for event in trace["traceEvents"]}
    assert (tmp_path / "profile" / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_a_searchs_own_passes_are_a_part(tmp_path):
    _, record, _ = profiled(tmp_path, search=True)
    assert {"beside the step", "backward", "student forward"} <= set(record["seconds_per_step"])


def test_nothing_is_left_on_the_method(tmp_path):
    *_, method = profiled(tmp_path)
    parts = [*method.members.values(), *method.frozen.values(), *method.terms.values()]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)


def test_a_run_that_is_too_short_says_so(tmp_path):
    heard, record, _ = profiled(tmp_path, steps=4)
    assert not record
    assert "takes 13 steps at least, and there were 4" in heard.lines[-1]


def test_parts_inside_parts_count_once(tmp_path):
    watched = Watched(tmp_path, Heard(), torch.device("cpu"))
    for _ in range(WARM_UP + TIMED + TRACED):
        with watched.part("outer"):
            time.sleep(0.002)
            with watched.part("inner"):
                time.sleep(0.004)
        watched.step()
    parts = json.loads((tmp_path / "profile.json").read_text())["seconds_per_step"]
    assert parts["inner"] >= 0.004
    assert 0.002 <= parts["outer"] < parts["inner"] + 0.002
    assert sum(parts.values()) == pytest.approx(parts["outer"] + parts["inner"] + parts["rest"])


def test_without_a_profile_nothing_is_watched():
    plain, batches = Profile(), [1, 2]
    assert plain.batches(batches) is batches
    with plain.part("data"):
        plain.step()
    plain.close()
