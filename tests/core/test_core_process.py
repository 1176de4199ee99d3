"""Weights by the clock: normalisers and their slopes, schedules, learned and replayed processes."""

from __future__ import annotations

import math

import pytest
import torch
from core_reference import FORMULAS
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.process import (
    NORMALISERS,
    Learned,
    Replayed,
    Scheduled,
    biased_softmax,
    exponential_ramp,
    normaliser,
    ramp,
)
from limbeck.process.recorded import Recorded
from limbeck.seen import Clock

RAW = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
NAMES = ("a", "b", "c", "d")


def jacobian(name: str, raw: Tensor) -> Tensor:
    """d w_i / d a_j by the formulas of specs/distpro.md section 6."""
    weights, identity = FORMULAS[name](raw), torch.eye(len(raw), dtype=raw.dtype)
    if name.endswith("softmax"):
        return weights[:, None] * (identity - weights[None])
    if name == "sigmoid":
        return torch.diag(weights * (1 - weights))
    total = raw.abs().sum() + (1 if name == "biased-l1" else 0)
    return (identity / total - raw.abs()[:, None] / total**2) * raw.sign()[None]


def test_the_biased_softmax_drops_a_logit_of_one():
    expected = torch.softmax(torch.cat([RAW, torch.ones(1)]), dim=0)[:-1]
    torch.testing.assert_close(biased_softmax(RAW), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(biased_softmax(torch.ones(27)), torch.full((27,), 1 / 28))


@pytest.mark.parametrize("name", NORMALISERS)
def test_normalisers_and_their_jacobians_are_the_papers(name):
    found = torch.autograd.functional.jacobian(NORMALISERS[name], RAW)
    torch.testing.assert_close(NORMALISERS[name](RAW), FORMULAS[name](RAW), rtol=1e-11, atol=0)
    torch.testing.assert_close(found, jacobian(name, RAW), rtol=1e-11, atol=1e-14)
    rows = torch.stack([RAW, 2 * RAW - 1])
    assert NORMALISERS[name](rows).min() >= 0
    torch.testing.assert_close(NORMALISERS[name](rows)[1], NORMALISERS[name](rows[1]))


@pytest.mark.parametrize("name", NORMALISERS)
def test_the_slope_of_raw_weights_is_by_the_chain_rule(name, clock_of):
    process = Learned(Scheduled({"ce": 1.0, "a": 2.0, "b": 1.0, "c": ramp(3.0, over=1.0), "d": 0.5}), NAMES,
                      normalise=name, scale=7.0)
    process.raw = RAW.clone()
    slope, base = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64), torch.tensor([2.0, 1.0, 1.5, 0.5])
    expected = jacobian(name, RAW).T @ (7 * base * slope)
    torch.testing.assert_close(process.raw_slope(slope, clock_of(5, 11)), expected, rtol=1e-6, atol=1e-9)


def test_an_unknown_normaliser_is_named():
    with pytest.raises(Mistake, match=r"no normaliser 'softmx'; closest: \['softmax', 'biased-softmax'\]"):
        normaliser("softmx")


# --- schedules


@pytest.fixture
def clock_of():
    """The clock at a step of so many, in epochs of four steps."""
    return lambda step, steps=12: Clock(step, steps, 4)


def test_ramps_rise_over_a_part_of_the_run(clock_of):
    straight, curved = ramp(3.0, over=0.5), exponential_ramp(3.0, over=0.5)
    assert [straight(clock_of(step, 11)) for step in (0, 1, 5, 10)] == pytest.approx([0, 0.6, 3, 3])
    assert [curved(clock_of(step, 11)) for step in (0, 1, 5, 10)] == pytest.approx(
        [3 * math.exp(-5), 3 * math.exp(-5 * 0.64), 3, 3])
    assert ramp(5.0)(Clock(20, 241, 1)) == pytest.approx(5.0)  # the papers' 20 of 240 epochs
    assert ramp(5.0)(Clock(19, 241, 1)) < 5.0


def test_scheduled_weights_are_constants_and_functions_of_the_clock(clock_of):
    process = Scheduled({"ce": 1.0, "kl": ramp(2.0, over=1.0), "late": lambda clock: float(clock.epoch >= 1)})
    assert process.names == ("ce", "kl", "late")
    assert process.weights(clock_of(0)).tolist() == [1, 0, 0]
    assert process.weights(clock_of(11)).tolist() == [1, 2, 1]


def test_a_term_is_computed_in_every_epoch_in_which_it_weighs_anything(clock_of):
    process = Scheduled({"ce": 1.0, "off": 0.0, "rising": ramp(2.0, over=1.0),
                         "early": lambda clock: float(clock.epoch == 0)})
    active = [process.active(clock_of(step)) for step in range(12)]
    assert active[0] == {"ce", "rising", "early"}  # the ramp starts at 0 and weighs something from the next step on
    assert active[4] == {"ce", "rising"}
    assert all(len(set(active[first:first + 4])) == 1 for first in (0, 4, 8))


def test_a_weight_within_an_epoch_counts_for_all_of_it(clock_of):
    process = Scheduled({"ce": 1.0, "once": lambda clock: float(clock.step == 5)})
    assert [process.active(clock_of(step)) for step in (0, 4, 7, 8)] == [
        {"ce"}, {"ce", "once"}, {"ce", "once"}, {"ce"}]


# --- learned


def learned(**options) -> Learned:
    return Learned(Scheduled({"ce": 0.1, "a": 1.0, "b": 2.0, "kl": ramp(1.0, over=1.0)}), ("b", "a"), **options)


def test_learned_weights_multiply_what_the_method_schedules(clock_of):
    process = learned()
    assert process.scale == 2
    process.raw.copy_(torch.tensor([1.0, 3.0]))
    total = 2 * math.e + math.e**3
    expected = [0.1, 2 * math.e**3 / total, 2 * 2 * math.e / total, 0.5]
    torch.testing.assert_close(process.weights(clock_of(5, 11)), torch.tensor(expected))
    other = learned(normalise="l1", scale=1.0)
    torch.testing.assert_close(other.weights(clock_of(0)), torch.tensor([0.1, 0.5, 1.0, 0]))
    assert learned(start=0.25).raw.tolist() == [0.25, 0.25]


def test_learned_weights_leave_a_process_of_ones_own_alone(clock_of):
    class Constant:
        names = ("a", "b")
        held = torch.tensor([2.0, 3.0])

        def active(self, clock: Clock) -> frozenset[str]:
            return frozenset(self.names)

        def weights(self, clock: Clock) -> Tensor:
            return self.held

    base = Constant()
    record = recorded([[1.0, 1.0]], names=("a", "b"))
    for process in (Learned(base, ("a",)), Replayed(base, record)):
        process.weights(clock_of(0))
        assert base.held.tolist() == [2, 3]


def test_without_a_threshold_all_is_computed(clock_of):
    process = learned()
    process.raw.fill_(-5.0)
    assert process.active(clock_of(5)) == {"ce", "a", "b", "kl"}


def test_with_a_threshold_terms_drop_out_at_an_epochs_start_and_return_with_the_refresh(clock_of):
    process, active = learned(threshold=0.5, refresh=3), []
    for step in range(20):
        process.raw[1] = 0.4 if step >= 1 else 0.6  # of a
        process.raw[0] = 0.4 if step in (5, 6, 7) else 0.6  # of b: within an epoch
        active.append(process.active(clock_of(step, 20)))
    everything, without = frozenset({"ce", "a", "b", "kl"}), frozenset({"ce", "b", "kl"})
    assert active == [everything] * 4 + [without] * 8 + [everything] * 4 + [without] * 4


def test_a_raw_weight_at_the_threshold_is_dropped(clock_of):
    process = learned(threshold=0.5, start=0.5)
    assert process.active(clock_of(4)) == {"ce", "kl"}


def test_a_loaded_learned_process_goes_on_within_its_epoch(clock_of):
    process, other = learned(threshold=0.5), learned(threshold=0.5)
    process.raw[0] = 0.0
    process.active(clock_of(4))
    process.raw[0] = 1.0
    other.load_state_dict(process.state_dict())
    process.raw[0] = 2.0  # what was saved is a copy
    assert other.raw.tolist() == [1, 1]
    assert other.active(clock_of(5)) == {"ce", "a", "kl"}
    assert other.active(clock_of(8)) == {"ce", "a", "b", "kl"}
    fresh = learned(threshold=0.5)
    fresh.load_state_dict(learned().state_dict())
    assert fresh.active(clock_of(5)) == {"ce", "a", "b", "kl"}


# --- replayed


def recorded(rows, *, names=NAMES, normalise: str = "biased-softmax") -> Recorded:
    raw = torch.as_tensor(rows, dtype=torch.float32)
    return Recorded(tuple(names), raw, NORMALISERS[normalise](raw), normalise, float(len(names)))


def replayed(rows, *, normalise: str = "biased-softmax", **options) -> Replayed:
    return Replayed(Scheduled({"ce": 1.0, **dict.fromkeys(NAMES, 1.0)}), recorded(rows, normalise=normalise), **options)


@pytest.mark.parametrize("length", [1, 2, 7, 50, 333])
def test_replay_at_the_same_length_returns_the_record(length):
    rows = torch.randn(length, 4)
    process = replayed(rows)
    found = torch.stack([process.raw(Clock(step, length, 10)) for step in range(length)])
    torch.testing.assert_close(found, rows, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("warp", [None, [(0.0, 0.0), (0.7, 0.3), (1.0, 1.0)]])
@pytest.mark.parametrize("length", [1, 2, 3, 10, 997])
def test_replay_keeps_both_ends_at_any_length(length, warp):
    rows = torch.randn(5, 4)
    process = replayed(rows, warp=warp)
    assert torch.equal(process.raw(Clock(0, length, 10)), rows[0])
    if length > 1:
        torch.testing.assert_close(process.raw(Clock(length - 1, length, 10)), rows[-1])


def test_raw_weights_are_interpolated_and_then_normalised(clock_of):
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    process, now = replayed(rows, threshold=None), clock_of(1, 9)  # progress 1/8: a quarter of the way to the second
    expected = torch.tensor([1.0, 1.0, 1.5, 2.5])
    torch.testing.assert_close(process.raw(now), expected)
    torch.testing.assert_close(process.normalised(now), biased_softmax(expected))
    torch.testing.assert_close(process.weights(now), torch.cat([torch.ones(1), 4 * biased_softmax(expected)]))
    assert process.active(now) == {"ce", *NAMES}


def test_weights_are_interpolated_where_asked(clock_of):
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 1.0, 0.0, 1.0]])
    process = replayed(rows, threshold=None, interpolate="weights")
    expected = 0.75 * biased_softmax(rows[0]) + 0.25 * biased_softmax(rows[1])
    torch.testing.assert_close(process.normalised(clock_of(2, 9)), expected)


CLIPPED = torch.tensor([[0.4, 0.5, 0.6, 2.0]])
SOFT = biased_softmax(CLIPPED[0])


@pytest.mark.parametrize("interpolate", ["raw", "weights"])
@pytest.mark.parametrize(("clip", "expected", "active"), [
    ("mask", SOFT * torch.tensor([0, 0, 1, 1]), {"ce", "c", "d"}),
    ("renormalise", SOFT * torch.tensor([0, 0, 1, 1]) * SOFT.sum() / SOFT[2:].sum(), {"ce", "c", "d"}),
    ("zero", biased_softmax(torch.tensor([0.0, 0.0, 0.6, 2.0])), {"ce", *NAMES}),
    ("floor", biased_softmax(torch.tensor([0.5, 0.5, 0.6, 2.0])), {"ce", *NAMES}),
])
def test_raw_weights_at_or_below_the_threshold_are_clipped(clock_of, clip, expected, active, interpolate):
    process = replayed(CLIPPED, clip=clip, interpolate=interpolate)
    torch.testing.assert_close(process.normalised(clock_of(5)), expected)
    assert process.active(clock_of(5)) == active
    unclipped = replayed(CLIPPED, clip=clip, interpolate=interpolate, threshold=None)
    torch.testing.assert_close(unclipped.normalised(clock_of(5)), SOFT)
    assert unclipped.active(clock_of(5)) == {"ce", *NAMES}


def test_where_all_is_clipped_nothing_is_left(clock_of):
    process = replayed([[0.1, 0.2, 0.3, 0.4]], clip="renormalise")
    assert process.active(clock_of(0)) == {"ce"}
    assert process.weights(clock_of(0)).tolist() == [1, 0, 0, 0, 0]


def test_terms_drop_out_only_at_an_epochs_start(clock_of):
    rows = torch.linspace(1.0, 0.0, 12)[:, None].repeat(1, 4)  # below the threshold from step 6 on, within an epoch
    process = replayed(rows)
    active = [process.active(clock_of(step)) for step in range(12)]
    assert active == [frozenset({"ce", *NAMES})] * 8 + [frozenset({"ce"})] * 4
    assert [bool(process.weights(clock_of(step))[1] > 0) for step in range(12)] == [True] * 8 + [False] * 4


def test_the_final_weights_stand_throughout(clock_of):
    process = replayed([[0.1, 3.0, 1.0, 1.0], [1.0, 0.2, 1.0, 2.0]], use="final")
    expected = biased_softmax(torch.tensor([1.0, 0.2, 1.0, 2.0])) * torch.tensor([1, 0, 1, 1])
    for step in (0, 5, 11):
        torch.testing.assert_close(process.normalised(clock_of(step)), expected)
        assert process.active(clock_of(step)) == {"ce", "a", "c", "d"}


def test_equal_weights_know_no_record_and_no_threshold(clock_of):
    process = replayed([[0.1, 3.0, 1.0, 1.0]], use="equal", scale=2.0)
    assert process.weights(clock_of(3)).tolist() == [1, 0.5, 0.5, 0.5, 0.5]
    assert process.active(clock_of(3)) == {"ce", *NAMES}


def test_weights_change_with_each_epoch_where_asked(clock_of):
    process = replayed(torch.randn(12, 4), granularity="epoch", threshold=None)
    weights = [process.weights(clock_of(step)) for step in range(12)]
    changed = [step for step in range(1, 12) if not torch.equal(weights[step - 1], weights[step])]
    assert changed == [4, 8]
    torch.testing.assert_close(process.raw(clock_of(6)), replayed(process.recorded.raw).raw(clock_of(4)))


def test_a_warp_maps_this_runs_progress_onto_the_searchs():
    rows = torch.linspace(0, 1, 101)[:, None].repeat(1, 4)
    process = replayed(rows, warp=[(0.0, 0.0), (0.625, 0.25), (0.75, 0.5), (1.0, 1.0)])
    found = [process.raw(Clock(step, 1001, 10))[0].item() for step in (0, 250, 625, 700, 750, 875, 1000)]
    assert found == pytest.approx([0, 0.1, 0.25, 0.4, 0.5, 0.75, 1], abs=1e-5)


def test_replay_multiplies_what_the_method_schedules(clock_of):
    base = Scheduled({"a": ramp(2.0, over=1.0), "b": 0.0, "c": 3.0, "d": 1.0})
    process = Replayed(base, recorded([[1.0, 1.0, 1.0, 1.0]]), scale=5.0)
    torch.testing.assert_close(process.weights(clock_of(5, 11)), torch.tensor([1.0, 0, 3, 1]))
    assert process.active(clock_of(5, 11)) == {"a", "c", "d"}


def test_terms_that_only_one_side_has(clock_of):
    """What only the record has counts in the normaliser; what only the method has keeps its weight or is absent."""
    base, record = Scheduled({"ce": 1.0, "kl": 0.7, "b": 1.0}), recorded([[1.0, 2.0]], names=("a", "b"))
    expected = 2 * math.exp(2) / (2 * math.e + math.exp(2))
    for absent, active in (((), {"ce", "kl", "b"}), (("kl",), {"ce", "b"})):
        process = Replayed(base, record, absent=absent)
        torch.testing.assert_close(process.weights(clock_of(0)), torch.tensor([1.0, 0.7, expected]))
        assert process.active(clock_of(0)) == active
