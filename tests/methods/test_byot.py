"""BYOT: exits as the spec has them, the total on their outputs, and who feels what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from methods_tiny import NOW, ce, kl, setting
from torch import Tensor

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.method import Method
from limbeck.methods.byot import Exit, byot, separable
from limbeck.seen import Outputs, Seen


def build(**options) -> Method:
    return byot(tiny(), setting(), **options)


def outputs(method: Method) -> dict[str, Outputs]:
    """Leaves in place of the student and its two exits."""
    chance = torch.Generator().manual_seed(0)
    shapes = {"logits": (8, 4), "pooled": (8, 16)}
    return {name: {tap: torch.randn(*shape, dtype=torch.float64, generator=chance).requires_grad_()
                   for tap, shape in shapes.items()} for name in ("student", "exit1", "exit2")}


def total(method: Method, known: dict[str, Outputs]) -> Tensor:
    method = method.double()
    weights = dict(zip(method.process.names, method.process.weights(NOW).double(), strict=True))
    terms = method(method.see(batch(), NOW, known=known), frozenset(method.terms))
    return sum(weights[name] * loss for name, loss in terms.items())


def soft(z: Tensor, target: Tensor, temperature: float = 3.0) -> Tensor:
    return -(target.div(temperature).softmax(1) * z.div(temperature).log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize(("without", "with_feature"), [
    ("last", ["exit1"]), ("first", ["exit2"]), ("none", ["exit1", "exit2"])])
def test_total_is_that_of_the_released_code(without, with_feature):
    method = build(without=without)
    z = outputs(method)
    expected = ce(z["student"]["logits"])
    for name in ("exit1", "exit2"):
        expected = expected + 0.7 * ce(z[name]["logits"]) + 0.3 * soft(z[name]["logits"], z["student"]["logits"])
    found = total(method, z)
    for name in with_feature:
        connect = method.terms[f"{name}/feature"].connect
        apart = z[name]["pooled"] @ connect.weight.T + connect.bias - z["student"]["pooled"]
        expected = expected + 0.03 * apart.square().sum().sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_reproduction_with_kl_is_nine_times_as_strong():
    method = build(soft="kl", alpha=0.4, without="none", weight=0.0, temperature=3.0)
    z = outputs(method)
    of_exit = {name: z[name]["logits"] for name in ("exit1", "exit2")}
    expected = ce(z["student"]["logits"]) + sum(
        0.6 * ce(own) + 0.4 * kl(own, z["student"]["logits"], 3.0) for own in of_exit.values())
    torch.testing.assert_close(total(method, z), expected, rtol=1e-6, atol=1e-6)
    one, other = (torch.autograd.grad(f(of_exit["exit1"], z["student"]["logits"].detach()), of_exit["exit1"])[0]
                  for f in (lambda own, target: kl(own, target, 3.0), soft))
    torch.testing.assert_close(one, 9 * other)


def test_the_last_exit_is_a_constant_and_the_stage_is_pulled():
    method = build(without="none").train()
    seen = method.see(batch(), NOW)
    terms = method(seen, frozenset(method.terms))
    for name in ("exit1/soft", "exit1/feature"):
        stage, later, answer = torch.autograd.grad(
            terms[name], [seen["student.stage1"], seen["student.stage2"], seen["student.logits"]], retain_graph=True,
            allow_unused=True)
        assert stage.abs().max() > 0
        assert later is None
        assert answer is None


def test_an_exit_is_as_large_as_the_spec_says():
    def separated(a: int, b: int) -> int:
        return 9 * a + a * a + 2 * a + 9 * a + a * b + 2 * b

    widths = (64, 128, 256, 512)
    for k in range(3):
        chain = sum(separated(a, b) for a, b in zip(widths[k:], widths[k + 1:], strict=False))
        attention = separated(widths[k], widths[k]) + 2 * widths[k]
        made = Exit("student.stage1", widths[k:], 100)
        assert sum(p.numel() for p in made.parameters()) == attention + chain + 512 * 100 + 100


def test_an_exit_looks_where_its_attention_says_and_halves_once_a_stage():
    made = Exit("student.stage1", (8, 16, 32), 4).eval()
    x = torch.rand(2, 8, 16, 16)
    assert separable(8, 16)(x).shape == (2, 16, 8, 8)
    assert made.deepen(x).shape == (2, 32, 4, 4)
    found = made(Seen(batch(2), NOW, {}, known={"student": {"stage1": x}}))
    where = torch.sigmoid(F.interpolate(made.attention(x), scale_factor=2, mode="bilinear"))
    pooled = made.deepen(x * where).mean((2, 3))
    torch.testing.assert_close(found["pooled"], pooled)
    torch.testing.assert_close(found["logits"], pooled @ made.classify.weight.T + made.classify.bias)


def test_every_exit_and_their_mean_is_scored():
    method = build()
    assert [name for name, member in method.members.items() if member.answers] == [
        "student", "exit1", "exit2", "ensemble"]
    seen = method.see(batch(), NOW)
    mean = sum(seen[f"{name}.logits"] for name in ("student", "exit1", "exit2")) / 3
    torch.testing.assert_close(seen["ensemble.logits"], mean)


def test_a_network_of_one_stage_has_no_exits():
    student = tiny()
    student.module.taps = {"stage1": "stages.0", "pooled": "fc:in"}
    with pytest.raises(Mistake, match=r"byot sets exits behind a network's earlier stages; tiny8 has \['stage1'\]"):
        byot(student, setting())
