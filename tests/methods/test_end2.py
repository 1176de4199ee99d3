"""EnD2: the loss against torch's Dirichlet, the temperature by the clock, and what the ensemble looks at."""

from __future__ import annotations

import pytest
import torch
from methods_tiny import NOW, logits, setting, total

from limbeck.config import Job
from limbeck.contract.trial import batch, tiny
from limbeck.data import Augmentation
from limbeck.errors import Mistake
from limbeck.jobs.parts import Parts
from limbeck.method import Method
from limbeck.methods.end2 import cooling, end2
from limbeck.progress import Display
from limbeck.seen import Clock
from limbeck.training import engine


def build(**options) -> Method:
    return end2(tiny(), setting(), ensemble=[tiny(10, seed=1), tiny(12, seed=2)], **options)


@pytest.mark.parametrize(("options", "temperature", "smoothing"), [
    ({}, 10.0, 1e-3), ({"temperature": 4.0, "smoothing": 1e-4}, 4.0, 1e-4)])
def test_loss_is_the_mean_log_density_of_the_members_beliefs(options, temperature, smoothing):
    z = logits("student", "member1", "member2")
    density = torch.distributions.Dirichlet((z["student"] / temperature).exp())
    beliefs = [(1 - smoothing) * ((z[name] / temperature).softmax(1) - 1 / 4) + 1 / 4
               for name in ("member1", "member2")]
    expected = -temperature**2 * sum(density.log_prob(belief).mean() for belief in beliefs) / 2
    torch.testing.assert_close(total(build(**options), z), expected, rtol=1e-6, atol=1e-6)


def test_temperature_is_held_falls_and_stays_at_one():
    schedule = cooling(10.0, hold=1 / 3, fall=1 / 3)
    found = [schedule(Clock(step, 91, 1)) for step in (0, 30, 45, 60, 90)]
    assert found == pytest.approx([10, 10, 5.5, 1, 1])
    at_once = cooling(10.0, hold=0.5, fall=0.0)
    assert [at_once(Clock(step, 11, 1)) for step in (0, 4, 5, 10)] == [10, 10, 1, 1]


def test_the_term_reads_the_clock():
    z = logits("student", "member1", "member2")
    late = Clock(19, 20, 10)
    torch.testing.assert_close(total(build(), z, late), total(build(temperature=1.0), z, NOW), rtol=1e-6, atol=1e-6)
    assert total(build(), z, late) != total(build(), z, NOW)


def test_members_look_at_plain_images_and_the_student_at_its_own():
    method, images = build().train(), batch(views=1)
    seen = method.see(images, NOW)
    assert method.views == ("plain",)
    student, member = method.members["student"], method.frozen["member2"]
    torch.testing.assert_close(seen["student.logits"], student.logits(images.images))
    torch.testing.assert_close(seen["member2.logits"], member.network.logits(images.views[0]))
    same = build(targets="same")
    assert same.views == ()
    torch.testing.assert_close(same.see(batch(), NOW)["member2.logits"], member.network.logits(images.images))


def test_plain_is_a_view_without_augmentation():
    parts = Parts("distill", Job.model_validate({"data": "digits", "student": "digits_small"}), engine.start("cpu"),
                  Display(quiet=True))
    assert parts.view("plain") == Augmentation()
    assert parts.view("same") != Augmentation()


def test_at_its_best_the_student_expects_the_members_log_beliefs():
    z = logits("student", "member1", "member2")
    student, method = torch.nn.Parameter(torch.zeros(8, 4, dtype=torch.float64)), build(temperature=1.0)
    optimizer = torch.optim.LBFGS([student], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = total(method, {**z, "student": student})
        value.backward()
        return value

    optimizer.step(loss)
    beliefs = [0.999 * (z[name].detach().softmax(1) - 1 / 4) + 1 / 4 for name in ("member1", "member2")]
    a = student.detach().exp()
    expected = torch.digamma(a) - torch.digamma(a.sum(1, keepdim=True))
    torch.testing.assert_close(expected, sum(belief.log() for belief in beliefs) / 2, rtol=1e-2, atol=1e-2)


def test_an_ensemble_is_needed():
    with pytest.raises(Mistake, match="end2 learns from an ensemble; got no network"):
        end2(tiny(), setting(), ensemble=[])
