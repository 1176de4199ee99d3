"""FFL: totals on fixed answers and maps, the fusion pulls its peers, peers of other shapes, blends with a teacher."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from features_tiny import convolved, losses, normed, total, weights_of
from methods_tiny import NOW, ce, kl, logits, setting
from torch import Tensor, nn

from limbeck.config import MethodSettings
from limbeck.contract.trial import tiny
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.members.branches import Branch
from limbeck.methods.ffl import ffl
from limbeck.process import exponential_ramp
from limbeck.seen import Clock
from limbeck.wiring import build_stages

RAMP = exponential_ramp(1.0, over=80 / 300)(NOW)


def known(*shapes: tuple[int, int, int]) -> dict[str, dict[str, Tensor]]:
    chance = torch.Generator().manual_seed(6)
    names = ("student", "peer1", "peer2")[:len(shapes)]
    maps = [torch.randn(8, *shape, dtype=torch.float64, generator=chance).requires_grad_() for shape in shapes]
    return {name: {"logits": z, "stage3": x} for (name, z), x in zip(logits(*names).items(), maps, strict=True)}


def fused(maps: list[Tensor], fusion: nn.Module) -> Tensor:
    x = torch.cat(maps, dim=1)
    x = F.relu(normed(convolved(x, fusion.fuse[0], padding=1, groups=x.shape[1])))
    x = F.relu(normed(convolved(x, fusion.fuse[3])))
    return x.mean((2, 3)) @ fusion.classify.weight.T + fusion.classify.bias


@pytest.mark.parametrize("copies", [1, 2])
def test_total_and_gradients_are_the_papers(copies: int) -> None:
    method = ffl(tiny(), setting(), copies=copies)[0].method.double()
    given = known(*[(16, 4, 4)] * (1 + copies))
    z, maps = ([own[tap] for own in given.values()] for tap in ("logits", "stage3"))
    answer = fused(maps, method.members["fusion"])
    mean = (sum(z) / len(z)).detach()
    expected = ce(answer) + RAMP * kl(answer, mean, 3.0) + sum(ce(x) + RAMP * kl(x, answer.detach(), 3.0) for x in z)
    found = total(method, given)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(*(torch.autograd.grad(x, [*z, *maps]) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_maps_of_other_shapes_are_brought_to_the_students() -> None:
    method = ffl(tiny(), setting(), peers=[tiny(12), tiny(kind="vit")])[0].method.double()
    assert method.members["fusion"].reads == ("student.stage3", "peer1.stage3", "peer2.stage4")
    bring = method.members["fusion"].equal[1]
    given = known((16, 4, 4), (24, 4, 4), (17, 8))
    given["peer2"]["stage4"] = torch.ones(8, 17, 8, dtype=torch.float64)
    brought = F.relu(normed(convolved(given["peer1"]["stage3"], bring[1])))
    patches = F.relu(normed(convolved(torch.ones(8, 8, 4, 4).double(), method.members["fusion"].equal[2][1])))
    answer = fused([given["student"]["stage3"], brought, patches], method.members["fusion"])
    torch.testing.assert_close(losses(method, given)["fusion/ce"], ce(answer), rtol=1e-6, atol=1e-6)


def test_peers_are_branches_or_networks_and_the_fusion_has_its_own_decay() -> None:
    student = tiny()
    (branches,), (networks,) = ffl(student, setting()), ffl(tiny(), setting(), form="networks", copies=2)
    assert branches.method.student() is student
    assert isinstance(branches.method.members["peer1"], Branch)
    assert [isinstance(networks.method.members[name], Network) for name in ("peer1", "peer2")] == [True, True]
    assert branches.optimizers == {"fusion": {"weight_decay": 1e-5}}
    weights = weights_of(ffl(tiny(), setting(), kl=0.5)[0].method, Clock(300, 301, 1))
    assert weights == {"ce": 1, "peer1/ce": 1, "student/fusion": 0.5, "peer1/fusion": 0.5, "fusion/ce": 1,
                       "fusion/mean": 0.5}


def test_a_teacher_joins_and_the_fusion_keeps_its_decay() -> None:
    stage, = build_stages(MethodSettings(name="kd+ffl"), tiny(), tiny(12), setting())
    assert {"ce", "kd/kl", "ffl/peer1/fusion", "ffl/fusion/ce"} <= set(stage.method.terms)
    assert list(stage.method.frozen) == ["teacher"]
    assert stage.optimizers == {"fusion": {"weight_decay": 1e-5}}


def test_stages_do_not_blend() -> None:
    with pytest.raises(Mistake, match="a blend has one stage, as long as the run; ft trains several"):
        build_stages(MethodSettings(name="kd+ft"), tiny(), tiny(12), setting())


def test_nobody_beside_the_student_is_refused() -> None:
    with pytest.raises(Mistake, match="it takes two or more; got 1"):
        ffl(tiny(), setting(), copies=0)
