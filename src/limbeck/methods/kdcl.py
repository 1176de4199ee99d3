"""KDCL: networks that look at the same images each in its own way, all pulled to one target made of their logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from limbeck import ranks
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.losses import general_weights, linear_target, minlogit_target, naive_target, soft_kl
from limbeck.members import Member, Network, lend
from limbeck.method import Method, Setting
from limbeck.methods.online import group, online
from limbeck.seen import Clock, Outputs, Seen
from limbeck.terms import Match, full

_OF_LABELS: dict[str, Callable[[Sequence[Tensor], Tensor], Tensor]] = {
    "naive": naive_target, "minlogit": minlogit_target, "linear": linear_target}


class Target(Member):
    """Logits made of all networks' logits and the labels; nobody feels them.

    Args:
        networks: Names of those that it reads.
        kind: How, a key of `_OF_LABELS`.
    """

    labelled = True

    def __init__(self, networks: Sequence[str], kind: str):
        super().__init__()
        self.reads, self.kind = tuple(f"{name}.logits" for name in networks), kind

    def forward(self, seen: Seen) -> Outputs:
        logits, labels = [full(seen.detached(address)) for address in self.reads], _labels(seen.batch.targets)
        with torch.autocast(labels.device.type, enabled=False):
            return {"logits": _OF_LABELS[self.kind](logits, labels)}


class Mixture(Member):
    """Logits whose softened beliefs are the networks' own, mixed by weights that held-out images renew every epoch.

    Args:
        networks: Those that it reads, by name; they stay whose they are.
        held_out: What the weights are found on, at the end of every epoch. Before, all weigh the same.
        temperature: T.
    """

    weights: Tensor

    def __init__(self, networks: Mapping[str, Network], held_out: Batches, temperature: float):
        super().__init__()
        self.reads = tuple(f"{name}.logits" for name in networks)
        self.networks, self.held_out, self.temperature = tuple(networks.values()), held_out, temperature
        self.register_buffer("weights", torch.full((len(networks),), 1 / len(networks)))

    def forward(self, seen: Seen) -> Outputs:
        logits = torch.stack([full(seen.detached(address)) for address in self.reads])  # (M, N, C)
        beliefs = (logits / self.temperature).log_softmax(dim=2)
        return {"logits": self.temperature * (beliefs + self.weights.log()[:, None, None]).logsumexp(dim=0)}

    def after_step(self, seen: Seen, clock: Clock) -> None:
        if (clock.step + 1) % clock.steps_per_epoch:
            return
        answers: list[list[Tensor]] = []
        labels: list[Tensor] = []
        for batch in self.held_out.epoch():
            answers.append([lend(network, Seen(batch, clock, {}))["logits"] for network in self.networks])
            labels.append(_labels(batch.targets))
        logits = [ranks.gathered(torch.cat(several)) for several in zip(*answers, strict=True)]
        self.weights.copy_(general_weights(logits, ranks.gathered(torch.cat(labels)), temperature=self.temperature))


def _labels(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise Mistake("kdcl makes its target by the labels; these images have none. Give labelled data, or use dml.")
    return targets


def kdcl(student: Network, setting: Setting, *, peers: Sequence[Network] = (), copies: int = 1,
         target: Literal["minlogit", "naive", "general", "linear"] = "minlogit", temperature: float = 2.0,
         ce: float = 1.0, kl: float = 1.0, own_views: bool = True, held_out: float = 0.1) -> Method:
    """Each network k: ce * CE + kl * T^2 KL(target || k), the target a constant.

    With y the label, the target is, sample by sample,
        minlogit: t_c = min_k (z^k_c - z^k_y);
        naive:    the logits of the network with the lowest cross-entropy;
        linear:   the mixture of logits with the lowest cross-entropy, one for the batch;
        general:  p_t = sum_k w_k p_k of softened beliefs, w with the smallest squared error on held-out images.

    Args:
        student: Learns, and ships.
        setting: The job.
        peers: Who learns beside it, of any architecture; none for copies of the student.
        copies: Untrained copies of the student that learn beside it, where no peers are given.
        target: How it is made. `linear` is a variant: that there is one mixture for the batch, and how it is searched,
            is ours. So are, in `general`, the temperature at which beliefs are mixed, 1e-6 on the diagonal of the
            errors' covariance, and negative weights put to 0.
        temperature: T.
        ce: Weight of the supervised losses.
        kl: Weight of the divergences; between 0.2 and 5 it matters little.
        own_views: Every network sees an augmentation of its own of each image; False shows all of them the same.
        held_out: Part of the training images that `general` keeps from training.

    Raises:
        Mistake: If nobody is beside the student, or `general` has no data to hold out.

    Source: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020, read in others' notes; T
    and kl from memory; MinLogit agrees with a re-implementation. `general` finds its weights at the end of each epoch,
    in eval mode.
    """
    networks = group(student, peers, copies, setting.seed)
    for view, name in enumerate(list(networks)[1:]):
        networks[name].view = view if own_views else None
    made = Target(list(networks), target) if target != "general" else _mixture(networks, setting, held_out, temperature)
    distance = partial(soft_kl, temperature=temperature)
    return online(networks, setting, {f"{name}/target": (Match(f"{name}.logits", "target.logits", distance), kl)
                                      for name in networks}, ce=ce, members={"target": made},
                  views=["same"] * (len(networks) - 1) if own_views else ())


def _mixture(networks: Mapping[str, Network], setting: Setting, part: float, temperature: float) -> Mixture:
    if setting.hold_out is None:
        raise Mistake("target=general finds its weights on held-out images, and this job has no data to cut them from. "
                      "Give the Setting a hold_out, or choose target=minlogit.")
    return Mixture(networks, setting.hold_out(part), temperature)
