"""`limbeck check`: a sound loss passes, and each breach of the contract is found and told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from limbeck.contract import CHECKS, CLAIMS, SEARCH_CHECKS, _trials, terms_are_scalars
from limbeck.contract.claims import claims_of
from limbeck.contract.running import ranks_agree
from limbeck.contract.steps import Broken, NotClaimed
from limbeck.contract.trial import Trial

Own = Callable[..., str]
EVERY = {"terms are scalars": terms_are_scalars, **CHECKS, **CLAIMS, **SEARCH_CHECKS}


def test_a_sound_loss_keeps_the_whole_contract(
        limbeck: Callable[..., int], own: Own, capfd: pytest.CaptureFixture) -> None:
    place = own("""
        @limbeck.loss(student="stages", connect="1x1 conv", zero_at_equality=True, nonnegative=True)
        def own(student, teacher, *, power: float = 2.0):
            return ((student - teacher).abs() + 1e-6).pow(power).mean() - 1e-6 ** power
    """)
    assert limbeck("check", place, "--set", "method.power=2.5") == 0
    said = capfd.readouterr().out.splitlines()
    around = ["a CNN teaches a ViT", "a ViT teaches a CNN"]
    names = ["terms are scalars", *around, *CHECKS, *CLAIMS, *SEARCH_CHECKS, "two ranks agree"]
    assert said == [f"  ok  {name}" for name in names]


@pytest.mark.parametrize(("check", "text", "told"), [
    ("terms are scalars", "return (student - teacher).mean(1)", "a tensor of shape (8,). Reduce it to one number"),
    ("terms are scalars", "return 3.0", "a tensor float"),
    ("terms are scalars", "return (student - teacher).detach().mean()", "no gradient flows back from term own"),
    ("terms are scalars", "return (student - teacher).double().mean()", "torch.float64, on ordinary input"),
    ("terms are scalars", "return (student.abs() / 0).mean()", "is inf"),
    ("terms are scalars", "student -= teacher; return student.mean()", "was changed in place. Use x + y"),
    ("terms are scalars", "import time; return student.mean() + time.perf_counter_ns() % 1000", "another value"),
    ("gradients reach whom they should", "return (student * 0).mean() + teacher.mean()", "sends gradients to nobody"),
    ("finite at extremes", "return (student.softmax(1).log() * teacher).mean()", "Work with log_softmax"),
    ("finite at extremes", "return ((student - teacher) ** 2).sum(1).sqrt().mean()", "Roots and norms have no"),
    ("the loss falls", "return -1000 * student.logsumexp(1).mean()", "See that it is to fall"),
    ("zero or least at equality", "return (student - teacher).pow(2).mean() + 1", "own is 1 where both sides"),
    ("zero or least at equality", "return (student - 2 * teacher).pow(2).mean() * (student - teacher).pow(2).mean()"
     " - (student - teacher).pow(2).mean()", "is not least where both sides are equal"),
    ("zero or least at equality", "return (student - teacher).mean()", "is not least where both sides are equal"),
    ("never negative", "return (student - teacher).mean()", "Drop the claim, or see which sign is wrong"),
    ("same when the batch repeats", "return (student - teacher).pow(2).sum()", "Average over images"),
    ("search slopes are exact", "return Square.apply(student)", "torch has no forward mode for an operation"),
], ids=lambda value: value[:40])
def test_a_breach_is_found_and_told(check: str, text: str, told: str, own: Own) -> None:
    place = own(f"""
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return (x * x).mean()

            @staticmethod
            def backward(ctx, slope):
                return slope * 2 * ctx.saved_tensors[0] / ctx.saved_tensors[0].numel()

        @limbeck.loss(zero_at_equality=True, nonnegative=True)
        def own(student, teacher):
            {text}
    """)
    trial = Trial(place, pulls={"": frozenset({"student"})})
    with pytest.raises(Broken) as broken:
        EVERY[check](trial)
    assert told in str(broken.value)


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_is_not_claimed_is_not_looked_at(claim: Callable[[Trial], None], own: Own) -> None:
    place = own("""
        @limbeck.loss(same_when_repeated=False)
        def own(student, teacher):
            return -(student - 2 * teacher).sum()
    """)
    with pytest.raises(NotClaimed):
        claim(Trial(place))


def test_a_minimum_need_not_be_zero(own: Own) -> None:
    place = own("""
        @limbeck.loss(minimum_at_equality=True)
        def own(student, teacher):
            return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()
    """)
    CLAIMS["zero or least at equality"](Trial(place))


def test_limbecks_own_methods_claim_nothing() -> None:
    assert claims_of(Trial("kd")) is None


def test_both_shapes_are_told_where_they_do_not_fit(own: Own) -> None:
    place = own("""
        @limbeck.loss(student="stage2")
        def own(student, teacher):
            return (student - teacher).mean()
    """)
    with pytest.raises(Broken, match=r"a student's \(8, 8, 8, 8\) beside a teacher's \(8, 12, 8, 8\).*'1x1 conv'"):
        terms_are_scalars(Trial(place))


def test_ranks_that_disagree_are_told() -> None:
    states = [{"kd": {"a": torch.zeros(2), "b": torch.tensor(rank), "c": torch.tensor(rank)}} for rank in (0, 1)]
    with pytest.raises(Broken, match="kd: two ranks disagree on b and 1 more"):
        ranks_agree(*states)


def test_a_broken_loss_ends_with_2_and_the_line_that_raised(
        limbeck: Callable[..., int], own: Own, capfd: pytest.CaptureFixture) -> None:
    place = own("""
        @limbeck.loss()
        def own(student, teacher):
            return student.nothing_of_this_name()
    """)
    assert limbeck("check", place) == 2
    said = capfd.readouterr()
    assert "FAIL  terms are scalars: AttributeError" in said.out
    assert "(mine.py, line 9)" in said.out
    assert "1 of 1 checks failed" in said.err


@pytest.mark.parametrize(("words", "told"), [
    (["kdd"], "there is no method 'kdd'; closest: ['kd'"),
    (["kd", "--set", "method.temprature=2"], "there is no setting temprature; closest: ['temperature'"),
    (["kd", "--set", "training.epochs=2"], "check sets options of the method alone; got training.epochs"),
])
def test_what_cannot_be_checked_is_told(words: list[str], told: str, limbeck: Callable[..., int],
                                        capfd: pytest.CaptureFixture) -> None:
    assert limbeck("check", *words) == 2
    assert told in capfd.readouterr().err


def test_who_is_pulled_is_known_of_losses_alone(own: Own) -> None:
    place = own("""
        from limbeck.methods.kd import kd

        def own(student, teacher, setting):
            return kd(student, teacher, setting)

        @limbeck.loss()
        def loss(student, teacher):
            return student.mean()
    """)
    assert _trials(place, {})[0].pulls == {}
    assert _trials(place.replace(":own", ":loss"), {})[0].pulls == {"": frozenset({"student"})}
    assert _trials(place.replace(":own", ":loss+kd"), {})[0].pulls == {}


def test_every_stage_of_a_method_is_tried() -> None:
    assert [trial.stage for trial in _trials("fitnet", {"form": "staged"})] == [0, 1]
    assert [trial.further for trial in _trials("takd", {})] == [{"assistants": (10,)}] * 2


@pytest.mark.parametrize(("method", "task"), [("kd", "classification"), ("ifvd", "segmentation"),
                                              ("ifvd+reviewkd", "segmentation")])
def test_a_method_is_tried_on_a_task_that_it_is_made_for(method: str, task: str) -> None:
    (trial,) = _trials(method, {})
    assert trial.task == task
