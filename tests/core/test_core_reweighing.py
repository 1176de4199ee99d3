"""What a search weighs, and what a process replays: of a blend the terms of methods that search, or those named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck import jobs
from limbeck.config import Job, job_of
from limbeck.contract.trial import Trial, built
from limbeck.errors import Mistake
from limbeck.jobs import doing
from limbeck.method import Method
from limbeck.process import Learned
from limbeck.process.recorded import Recorded
from limbeck.seen import Clock
from limbeck.wiring.reweighing import searched_terms, searches, under_replay, under_search

PATHS = {"distpro": {"teacher_taps": ["stage3"]}}
NAMES = [f"distpro/t3>s{own}/{kind}" for own in (1, 2, 3) for kind in ("c2", "c3", "complex")]
NOW = Clock(5, 20, 10)


def job(method: str = "kd+distpro", **settings: Any) -> Job:
    return job_of({"data": "digits", "student": "digits_small", "method": method}, settings)


def blended() -> Method:
    return built(Trial("kd+distpro", PATHS))


def weights(method: Method) -> dict[str, float]:
    return dict(zip(method.process.names, method.process.weights(NOW).tolist(), strict=True))


def test_a_blend_searches_the_terms_of_methods_that_search() -> None:
    assert searched_terms(blended(), job()) == tuple(NAMES)


def test_else_all_terms_are_searched() -> None:
    assert searched_terms(built(Trial("kd+at")), job("kd+at")) == ("kd/kl", "at/stage1", "at/stage2", "at/stage3")
    alone = built(Trial("distpro", {"kl": 1.0, **PATHS["distpro"]}))
    assert searched_terms(alone, job("distpro")) == (*(name.removeprefix("distpro/") for name in NAMES), "kl")


@pytest.mark.parametrize(("terms", "expected"), [
    (["*"], ["kd/kl", *NAMES]), (["kd/*"], ["kd/kl"]), (["*/t3>s1/*", "kd/kl"], ["kd/kl", *NAMES[:3]]),
    (["distpro/*/c?"], [name for name in NAMES if "complex" not in name])])
def test_patterns_choose(terms: list[str], expected: list[str]) -> None:
    assert list(searched_terms(blended(), job(**{"search.terms": terms}))) == expected


def test_a_pattern_without_a_term_is_a_mistake() -> None:
    with pytest.raises(Mistake, match=r"none of kd\+distpro fits 'ifvd/\*'; there is \['kd/kl'"):
        searched_terms(blended(), job(**{"search.terms": ["distpro/*", "ifvd/*"]}))


def test_terms_that_are_not_searched_keep_their_weights() -> None:
    method = under_search(blended(), job())
    assert isinstance(method.process, Learned)
    method.process.raw += torch.linspace(-1, 1, 9)
    found = weights(method)
    assert (found["ce"], found["kd/kl"]) == pytest.approx((1.0, 0.9))
    assert len({found[name] for name in NAMES}) == 9
    assert sum(found[name] for name in NAMES) < 9


def recorded(fixed: tuple[str, ...]) -> Recorded:
    raw = torch.stack([torch.ones(9), torch.linspace(0.6, 2, 9)])
    return Recorded(tuple(NAMES), raw, raw, "biased-softmax", 9.0, fixed)


def test_replay_leaves_them_as_they_were() -> None:
    method, note = under_replay(blended(), job(), recorded(("ce", "kd/kl")))
    assert note is None
    found = weights(method)
    assert (found["ce"], found["kd/kl"]) == pytest.approx((1.0, 0.9))
    assert found[NAMES[-1]] > found[NAMES[0]]


def test_a_process_that_knows_nothing_of_a_term_does_not_fit() -> None:
    with pytest.raises(Mistake, match=r"only in the method: \['kd/kl'\]"):
        under_replay(blended(), job(), recorded(("ce",)))
    method, note = under_replay(blended(), job(**{"process.unmatched": "drop"}), recorded(("ce",)))
    assert "kd/kl" in str(note)
    assert "kd/kl" not in method.process.active(NOW)


def test_a_process_of_the_method_alone_serves_it_in_a_blend_and_the_other_way_round() -> None:
    own = recorded(())
    alone = replace(own, names=tuple(name.removeprefix("distpro/") for name in NAMES), fixed=("ce",))
    method, note = under_replay(blended(), job(), alone)
    expected, _ = under_replay(blended(), job(), recorded(("ce", "kd/kl")))
    assert note is None
    assert weights(method) == weights(expected)
    single, note = under_replay(built(Trial("distpro", PATHS["distpro"])), job("distpro"), recorded(("ce", "kd/kl")))
    assert note is None
    assert [weights(single)[name] for name in alone.names] == [weights(method)[name] for name in NAMES]


def test_equal_weights_are_those_of_the_searched_terms_alone() -> None:
    method, _ = under_replay(blended(), job(**{"process.use": "equal"}), None)
    assert weights(method) == pytest.approx({"ce": 1.0, "kd/kl": 0.9, **dict.fromkeys(NAMES, 1.0)})
    scaled, _ = under_replay(blended(), job(**{"process.use": "equal", "process.scale": 1.0}), None)
    assert weights(scaled) == pytest.approx({"ce": 1.0, "kd/kl": 0.9, **dict.fromkeys(NAMES, 1 / 9)})


@pytest.mark.parametrize(("method", "first"), [("distpro", True), ("ifvd+distpro", True), ("kd+at", False)])
def test_who_distils_with_distpro_in_it_searches_first(method: str, first: bool, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def execute(verb: str, job: Job, folder: Path, **how: Any) -> None:
        asked.append((verb, folder))
        raise Mistake("that far")

    monkeypatch.setattr(doing, "execute", execute)
    assert searches(method) == first
    if first:
        with pytest.raises(Mistake, match="that far"):
            jobs.found_process("distill", job(method), tmp_path)
        assert asked == [("search", tmp_path / "search")]
    else:
        assert jobs.found_process("distill", job(method), tmp_path) is None
