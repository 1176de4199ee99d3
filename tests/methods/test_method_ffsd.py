"""FFSD: every player's total on fixed maps against the formulas of specs/ffsd.md, written plainly; switches; sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from features_tiny import convolved, losses, normed, parameters, weights_of
from methods_tiny import NOW, ce, kl, setting, trainer
from torch import Tensor, nn

from limbeck.contract.steps import step
from limbeck.contract.trial import CLASSES, NETS, batch, tiny
from limbeck.contract.values import members_reached
from limbeck.errors import Mistake, Stopped
from limbeck.members import STATISTICS, Network
from limbeck.method import Method, Stage
from limbeck.methods.ffsd import ffsd
from limbeck.methods.fusing import Carrier
from limbeck.methods.leading import lead
from limbeck.networks import build
from limbeck.seen import Clock
from limbeck.trainer import Trainer

Maps = dict[str, Tensor]
SHAPES = {"stage1": (8, 16, 16), "stage2": (8, 8, 8), "stage3": (16, 4, 4)}


def made(**options) -> tuple[Method, dict[str, Maps]]:
    """The method in float64 on fixed maps and logits; the carriers' running statistics are no longer 0 and 1."""
    method = ffsd(tiny(), setting(), **options)[0].method.double().train()
    chance = torch.Generator().manual_seed(3)
    for name, buffer in method.named_buffers():
        if "carrier" in name and "running" in name:
            drawn = torch.rand(buffer.shape, generator=chance, dtype=torch.float64)
            buffer.copy_(drawn + 0.5 if "var" in name else drawn - 0.5)
    known = {}
    for name in [name for name in method.members if name.startswith(("student", "leader"))]:
        known[name] = {tap: torch.randn(8, *shape, generator=chance, dtype=torch.float64).requires_grad_()
                       for tap, shape in {"logits": (CLASSES,), **SHAPES}.items()}
        for tap in SHAPES:
            known[name][tap].data.relu_()
    return method, known


def players(method: Method, known: dict[str, Maps], now: Clock = NOW) -> dict[str, Tensor]:
    """Each player's weighted loss, by the first part of its terms' names."""
    weights, totals = weights_of(method, now), dict[str, Tensor]()
    for name, loss in losses(method, known, now).items():
        player = name.partition("/")[0]
        totals[player] = totals.get(player, 0) + weights[name] * loss
    return totals


# --- the formulas of specs/ffsd.md, sections 3 and 4


def attention(x: Tensor) -> Tensor:
    """(7): (N, H, W)."""
    return (x**2).sum(1) / x.shape[1]


def length(x: Tensor) -> Tensor:
    """Of each sample, (N, 1, 1...)."""
    return x.flatten(1).pow(2).sum(1).sqrt().view(-1, *[1] * (x.ndim - 1))


def distance(x: Tensor, y: Tensor) -> Tensor:
    """D."""
    return ((x / length(x) - y / length(y)) ** 2).sum() / x.numel()


def attentions(x: Tensor, y: Tensor) -> Tensor:
    return distance(attention(x), attention(y))


def turned(before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(8), image by image: the target, A at length 1, and A's length."""
    targets, units, lengths = [], [], []
    for a in attention(before.detach()):
        n = (a**2).sum().sqrt()
        unit = a / n
        least = sorted(unit.flatten().tolist())[int(a.numel() / 3) - 1]
        target = torch.where(unit > least, n - unit, unit)
        targets.append(torch.where(unit == least, n / 2, target))
        units.append(unit)
        lengths.append(n)
    return torch.stack(targets), torch.stack(units), torch.stack(lengths).view(-1, 1, 1)


def diversity(own: Tensor, before: Tensor) -> Tensor:
    """(9)."""
    a = attention(own)
    return ((a / length(a) - turned(before)[0]) ** 2).sum() / a.numel()


def diverse_map(before: Tensor) -> Tensor:
    """What a carrier is given in the place of the last map of the student before."""
    target, unit, n = turned(before)
    return before.detach() + ((target - unit) * n / before.shape[1])[:, None]


def pair(x: Tensor, parts: nn.Sequential) -> Tensor:
    """A depth-wise 3 x 3 and a 1 x 1 convolution by the batch's statistics."""
    x = F.relu(normed(convolved(x, parts[0], padding=1, groups=x.shape[1])))
    return F.relu(normed(convolved(x, parts[3])))


def carried(x: Tensor, carrier: Carrier, *, train: bool) -> Maps:
    """The self-distillation module, deep to shallow."""
    maps = {}
    for stage, block in (("stage2", carrier.blocks[1]), ("stage1", carrier.blocks[0])):
        x = F.conv_transpose2d(x, block[0].weight, stride=2, padding=1, output_padding=1)
        norm = block[1]
        mean, variance = (statistic[:, None, None] for statistic in (norm.running_mean, norm.running_var))
        x = F.relu(normed(x) if train else (x - mean) / (variance + 1e-5).sqrt())
        maps[stage] = x
    return maps


def carrier_loss(maps: Maps, carrier: Carrier) -> Tensor:
    """(10) with mu = 1 and the scale of 1000."""
    made_of = carried(maps["stage3"].detach(), carrier, train=True)
    return 1000 * sum(distance(made_of[s], maps[s]) + attentions(made_of[s], maps[s]) for s in ("stage1", "stage2"))


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def expected_players(method: Method, known: dict[str, Maps], *, beta: float = 10, gamma: float = 10,
                     scale: float = 1e-5) -> dict[str, Tensor]:
    """Totals of all players, by section 4, before the running statistics move."""
    members, names = method.members, [name for name in known if name != "leader"]
    maps, z = [known[name]["stage3"] for name in names], {name: own["logits"] for name, own in known.items()}
    totals = {name: ce(z[name]) + sum(kl(z[name], z[other].detach(), 2.0) for other in names if other != name)
              / (len(names) - 1) for name in names}
    for before, name in zip(names, names[1:], strict=False):  # (9), (11), (12)
        carrier = members[f"carrier_{name}"]
        target = carried(diverse_map(known[before]["stage3"]), carrier, train=False)
        deep = sum(attentions(known[name][s], target[s]) for s in ("stage1", "stage2"))
        totals[name] = totals[name] + scale * (diversity(known[name]["stage3"], known[before]["stage3"]) + deep)
        totals[f"carrier_{name}"] = carrier_loss(known[name], carrier)
    together = torch.cat(maps, dim=1)  # (4), (5), (13), (14)
    fused = pair(together, members["fusion"].fuse)
    answer = fused.mean((2, 3)) @ members["fusion"].classify.weight.T + members["fusion"].classify.bias
    totals["fusion"] = ce(answer) + kl(answer, sum(z[name] for name in names) / len(names), 2.0)
    own = known["leader"]
    decoded = pair(own["stage3"], members["decoder"].decode)
    target = carried(fused, members["carrier_leader"], train=False)
    totals["leader"] = (ce(z["leader"]) + kl(z["leader"], answer, 2.0)
                        + beta * (attentions(own["stage3"], fused) + attentions(decoded, together))
                        + gamma * sum(attentions(own[s], target[s]) for s in ("stage1", "stage2")))
    totals["carrier_leader"] = carrier_loss(own, members["carrier_leader"])
    return totals


@pytest.mark.parametrize("students", [2, 3])
def test_every_players_total_is_the_papers(students: int) -> None:
    method, known = made(students=students)
    expected = expected_players(method, known)
    found = players(method, known)
    assert set(found) == set(expected)
    for name, total in expected.items():
        close(found[name], total)


def test_weights_are_where_the_formulas_have_them() -> None:
    method, known = made(fused=3.0, carried=1000.0, diversity=0.5, carrier=500.0)
    expected = expected_players(method, known, beta=3.0, gamma=1000.0, scale=0.5)
    found = players(method, known)
    for name, total in expected.items():
        close(found[name], total / 2 if name.startswith("carrier") else total)


def test_targets_are_constants_and_each_network_gets_its_own_gradient() -> None:
    """d(sum of all) / d(a network's maps) is that of its own total alone."""
    method, known = made(students=3)
    together, own = sum(players(method, known).values()), expected_players(made(students=3)[0], known)
    for name, outputs in known.items():
        alone = torch.autograd.grad(own[name], list(outputs.values()), retain_graph=True, allow_unused=True)
        alone = [torch.zeros_like(x) if g is None else g for x, g in zip(outputs.values(), alone, strict=True)]
        if name == "leader":
            alone = torch.autograd.grad(own[name], list(outputs.values()), retain_graph=True)
        found = torch.autograd.grad(together, list(outputs.values()), retain_graph=True, allow_unused=True)
        for x, one, other in zip(outputs.values(), found, alone, strict=True):
            torch.testing.assert_close(torch.zeros_like(x) if one is None else one, other, rtol=1e-6, atol=1e-12)
