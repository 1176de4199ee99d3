"""ONE: branches on one trunk learn from all their answers together, mixed by a gate that looks at the trunk."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from limbeck.connectors import as_map, map_shape
from limbeck.members import Ensemble, Member, Network
from limbeck.members.branches import branch_point
from limbeck.method import Method, Setting, Stage
from limbeck.methods.answers import towards
from limbeck.methods.leading import Pulls, lead, lent_first, own_optimizers
from limbeck.methods.online import branched, online
from limbeck.process import exponential_ramp
from limbeck.seen import Outputs, Seen
from limbeck.terms import Supervise


class Gate(Member):
    """How much each branch counts for an image, by what the trunk makes of it; and their logits, so mixed.

    Args:
        trunk: Address of the trunk's output.
        channels: Of it.
        answers: Addresses of the branches' logits.
    """

    answers = True

    def __init__(self, trunk: str, channels: int, answers: list[str]):
        super().__init__()
        self.reads = (trunk, *answers)
        self.score, self.norm = nn.Linear(channels, len(answers)), nn.BatchNorm1d(len(answers))

    def forward(self, seen: Seen) -> Outputs:
        trunk, *logits = (seen[address] for address in self.reads)
        self.norm.train(self.training and len(trunk) > 1)  # one image alone, at an epoch's end, has no spread
        weights = self.norm(self.score(as_map(trunk).mean((2, 3)))).relu().softmax(dim=1)  # (N, M)
        return {"weights": weights, "logits": torch.einsum("nm,nm...->n...", weights, torch.stack(logits, dim=1))}


class Shared(Member):
    """The trunk's output as it is; the gradient of all that reads it, the first branch included, is divided.

    Args:
        trunk: Address of the trunk's output.
        by: Number of branches.
    """

    def __init__(self, trunk: str, by: int):
        super().__init__()
        self.reads, self.by = (trunk,), by

    def forward(self, seen: Seen) -> Outputs:
        x = seen[self.reads[0]]
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient / self.by)
        return {"map": x}


def one(student: Network, setting: Setting, *, branches: int = 3, split: str | None = None,
        target: Literal["gated", "others"] = "gated", temperature: float = 3.0, kl: float = 1.0,
        warm_up: float = 80 / 300, divide_trunk: bool = False, leader: bool = False) -> Method | list[Stage]:
    """Every branch i: CE + kl * ramp * T^2 KL(e || i); the gated mixture e of their logits: CE.

    The gate's weights are softmax(ReLU(BN(W mean over positions of the trunk's output))). e learns by its CE, and so do
    the branches through it; as a target it is a constant. CL-ILR is `target=others, divide_trunk=true`.

    Args:
        student: Trunk and first branch, which ship; with `leader`, the leader, and the trunk is a fresh copy.
        setting: The job.
        branches: How many there are, the first included.
        split: The layer behind which they part; None is the stage before the last. DenseNet's published branches begin
            behind the transition: trans2.
        target: `gated`; or `others`: the mean of the other branches' logits, and no gate.
        temperature: T.
        kl: Weight of the divergences.
        warm_up: Part of the run over which it rises as exp(-5 (1 - x)^2): 80 of 300 epochs.
        divide_trunk: Divide the trunk's gradient by the number of branches.
        leader: FFSD's leader on top ("ONE + SL" in its Table V): it learns from the fused last maps of the branches and
            the mean of their logits, as in `ffsd`, and ships.

    Raises:
        Mistake: If there are not two branches, or the network cannot be parted there.

    Source: Lan, Zhu, Gong, Knowledge Distillation by On-the-Fly Native Ensemble, NeurIPS 2018, arXiv:1806.04606, and
    its code, which adds 1e-7 to the target's probabilities. CL-ILR: Song and Chai, Collaborative Learning for Deep
    Neural Networks, NeurIPS 2018, as in the OKDDip repository. Released code detaches ONE's target; OKDDip's copy does
    not.
    """
    trunk = student.fresh(setting.seed + branches) if leader else student
    split, last = branch_point(trunk, split), trunk.stages[-1]
    networks = branched(trunk, branches, setting.seed, split=split, read="shared.map" if divide_trunk else "",
                        taps=[last] if leader else [])
    logits = {name: f"{name}.logits" for name in networks}
    weight = exponential_ramp(kl, over=warm_up)
    members: dict[str, Member] = {"shared": Shared(f"student.{split}", branches)} if divide_trunk else {}
    pulls: Pulls = {}
    if target == "gated":
        seen = trunk.as_map(split)
        members["gate"] = Gate(f"student.{seen}", map_shape(trunk.shape(seen))[0], list(logits.values()))
        pulls["gate/ce"] = (Supervise("gate", setting.task), 1.0)
    for name, own in logits.items():
        if target == "others":
            members[f"others_{name}"] = Ensemble([other for other in logits.values() if other != own])
        source = "gate" if target == "gated" else f"others_{name}"
        pulls[f"{name}/{target}"] = (towards(setting.task, name, source, temperature=temperature), weight)
    if not leader:
        return online(networks, setting, pulls, members=members)
    led, leading = lead(student, [f"{name}.{last}" for name in networks], setting)
    method = online(networks, setting, lent_first(pulls | leading), members=members | led, deploy="leader")
    return [Stage(method, optimizers=own_optimizers(led))]
