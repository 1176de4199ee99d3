"""Auxiliary outputs: a network declares them, and whoever supervises it supervises them inside the one term."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import wiring
from limbeck.config import MethodSettings
from limbeck.members import STATISTICS, Frozen, Network
from limbeck.members.branches import Branch
from limbeck.method import Method, Setting
from limbeck.networks import build
from limbeck.process import Scheduled
from limbeck.seen import Batch, Clock, Seen
from limbeck.tasks.classification import Classification
from limbeck.tasks.segmentation import Segmentation
from limbeck.terms import Supervise

SIZE, CLOCK = (3, 32, 40), Clock(5, 20, 10)


def pspnet(seed: int = 0) -> Network:
    def made() -> nn.Module:
        return build("pspnet_tiny", 4)

    torch.manual_seed(seed)
    return Network(made(), name="pspnet", size=SIZE, statistics=STATISTICS["identity"], factory=made)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (3, *SIZE[1:]), generator=generator)
    labels[0, :20] = 255
    return Batch(torch.rand(3, *SIZE, generator=generator), labels, torch.arange(3))


def setting() -> Setting:
    return Setting(Segmentation(4), tuple("abcd"), None, torch.arange(3), batch())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the pixels that count, at the labels' size."""
    logits = F.interpolate(logits, labels.shape[1:], mode="bilinear").movedim(1, 3)[labels != 255]
    return F.cross_entropy(logits, labels[labels != 255])


def losses(method: Method) -> tuple[dict[str, Tensor], Seen]:
    seen = method.see(batch(), CLOCK)
    return method(seen, method.process.active(CLOCK)), seen


@pytest.mark.parametrize("name", ["none", "kd", "at"])
def test_every_methods_supervised_term_has_them(name: str) -> None:
    teacher = None if name == "none" else pspnet(1)
    (stage,) = wiring.build_stages(MethodSettings(name=name), pspnet(), teacher, setting())
    stage.method.eval()
    found, seen = losses(stage.method)
    expected = (cross_entropy(seen["student.logits"], batch().targets)
                + 0.4 * cross_entropy(seen["student.aux"], batch().targets))
    torch.testing.assert_close(found["ce"], expected)
    head, = torch.autograd.grad(found["ce"], [stage.method.student().module.dsn[3].weight])
    assert head.abs().sum() > 0


def test_every_peer_has_its_own() -> None:
    (stage,) = wiring.build_stages(MethodSettings(name="dml", kl=0.0), pspnet(), None, setting())
    found, seen = losses(stage.method.eval())
    for name, term in (("student", "ce"), ("peer1", "peer1/ce")):
        expected = cross_entropy(seen[f"{name}.logits"], batch().targets)
        torch.testing.assert_close(found[term],
                                   expected + 0.4 * cross_entropy(seen[f"{name}.aux"], batch().targets))


def test_a_network_without_them_has_the_plain_loss() -> None:
    module = build("resnet8", 4)
    network = Network(module, name="resnet8", size=SIZE, statistics=STATISTICS["identity"])
    term = Supervise("student", Classification())
    Method({"student": network}, {"ce": term}, Scheduled({"ce": 1.0}))
    assert (network.auxiliary, term.reads) == ({}, ("student.logits",))


def test_other_outputs_and_teachers_have_none() -> None:
    student, aside = pspnet(), Supervise("student", Segmentation(4), tap="aux")
    method = Method({"student": student}, {"ce": Supervise("student", Segmentation(4)), "aside": aside},
                    Scheduled({"ce": 1.0, "aside": 1.0}), frozen={"teacher": pspnet(1)})
    assert aside.reads == ("student.aux",)
    assert dict(Frozen(pspnet()).auxiliary) == {}
    assert not any(address.startswith("teacher") for address in method.reads())


@pytest.mark.parametrize(("layer", "expected"), [("stage3", {"aux": 0.4}), ("stage2", {"aux": 0.4}), ("stage4", {})])
def test_a_branch_has_those_that_lie_behind_its_layer(layer: str, expected: dict[str, float]) -> None:
    network = pspnet()
    network.tap([layer, "aux"])
    branch = Branch(network, f"student.{layer}", layer, seed=3)
    assert branch.auxiliary == expected
    seen = Seen(batch(), CLOCK, {"student": network.eval()})
    branch.load_state_dict({f"module.{key}": x for key, x in network.module.state_dict().items()
                            if f"module.{key}" in branch.state_dict()})
    outputs = branch.eval()(seen)
    assert set(outputs) == {"logits", *expected}
    for tap, x in outputs.items():
        torch.testing.assert_close(x, seen[f"student.{tap}"])


def test_a_branch_is_supervised_with_them() -> None:
    network = pspnet()
    members = {"student": network, "peer1": Branch(network, "student.stage3", "stage3", seed=3)}
    method = Method(members, {"peer1/ce": Supervise("peer1", Segmentation(4))}, Scheduled({"peer1/ce": 1.0})).eval()
    found, seen = losses(method)
    expected = cross_entropy(seen["peer1.logits"], batch().targets)
    torch.testing.assert_close(found["peer1/ce"],
                               expected + 0.4 * cross_entropy(seen["peer1.aux"], batch().targets))
    own = [p for key, p in members["peer1"].named_parameters() if "dsn" in key]
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(found["peer1/ce"], own))
