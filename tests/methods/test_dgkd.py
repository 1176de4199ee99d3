"""DGKD: everyone larger teaches, and some of them, drawn for each step, keep silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from methods_tiny import NOW, ce, kl, logits, setting, total

from limbeck.contract.trial import tiny
from limbeck.methods.dgkd import dgkd
from limbeck.process import Learned
from limbeck.seen import Clock

SOURCES = ("teacher", "assistant1", "assistant2")


def stages(seed: int = 0, **options):
    networks = [tiny(12, seed=1), tiny(11, seed=2), tiny(10, seed=3), tiny()]
    return networks, dgkd(networks[-1], networks[0], setting(seed), assistants=networks[1:-1], **options)


def test_everyone_larger_teaches():
    networks, built = stages()
    assert [stage.name for stage in built] == ["assistant1", "assistant2", "student"]
    for place, stage in enumerate(built, start=1):
        assert [member.network for member in stage.method.frozen.values()] == networks[:place]
        assert list(stage.method.frozen) == list(SOURCES[:place])
        assert stage.method.student() is networks[place]


def test_total_without_dropping_is_the_sum_of_all():
    z = logits("student", *SOURCES)
    built = stages(drop=0, temperature=5.0, ce=0.3, kl=0.7)[1]
    for place, stage in enumerate(built, start=1):
        expected = 0.3 * ce(z["student"]) + 0.7 * sum(kl(z["student"], z[name], 5.0) for name in SOURCES[:place])
        torch.testing.assert_close(total(stage.method, z), expected, rtol=1e-6, atol=1e-6)


def test_one_of_three_is_left_out_of_a_step():
    z, method = logits("student", *SOURCES), stages()[1][-1].method
    weights = dict(zip(method.process.names, method.process.weights(NOW).tolist(), strict=True))
    (dropped,) = [name for name in SOURCES if weights[f"kl/{name}"] == 0]
    heard = sum(kl(z["student"], z[name]) for name in SOURCES if name != dropped)
    torch.testing.assert_close(total(method, z), 0.1 * ce(z["student"]) + 0.9 * heard, rtol=1e-6, atol=1e-6)


def silent(method, step: int) -> tuple[str, ...]:
    weights = method.process.weights(Clock(step, 1000, 10))
    return tuple(name for name, weight in zip(method.process.names, weights.tolist(), strict=True) if weight == 0)


@pytest.mark.parametrize(("drop", "count"), [(1, 1), (2, 2), (7, 2)])
def test_each_is_left_out_as_often_as_the_others_and_one_always_stays(drop, count):
    method = stages(drop=drop)[1][-1].method
    drawn = [silent(method, step) for step in range(900)]
    assert {len(names) for names in drawn} == {count}
    often = Counter(name for names in drawn for name in names)
    assert set(often) == {f"kl/{name}" for name in SOURCES}
    assert all(abs(n / 900 - count / 3) < 0.06 for n in often.values())


def test_what_is_left_out_depends_on_step_stage_and_seed_alone():
    (_, built), (_, again), (_, other) = stages(), stages(), stages(seed=1)
    drawn = [[silent(s.method, step) for step in range(40)] for s in (built[-1], again[-1], other[-1], built[1])]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert [names == ("kl/teacher",) for names in drawn[0]] != [names == ("kl/teacher",) for names in drawn[3]]


def test_the_only_teacher_is_never_left_out():
    assert all(silent(stages()[1][0].method, step) == () for step in range(20))


def test_nothing_stops_being_computed_and_a_search_knows_that_weights_vanish():
    method = stages()[1][-1].method
    assert method.process.active(NOW) == frozenset(method.terms)
    assert method.process.active(replace(NOW, step=11)) == frozenset(method.terms)
    assert Learned(method.process, method.searchable()).can_vanish


def test_trained_assistants_leave_one_stage():
    networks, built = stages(trained=True)
    assert [stage.name for stage in built] == ["student"]
    assert [member.network for member in built[0].method.frozen.values()] == networks[:-1]
