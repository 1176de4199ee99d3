"""OKDDip: every peer learns from its own mixture of all peers, found by attention; a leader learns from their mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import nn

from limbeck.errors import Mistake
from limbeck.losses import soft_kl
from limbeck.members import Ensemble, Member, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.methods.online import branched_or_group, online
from limbeck.process import exponential_ramp
from limbeck.seen import Outputs, Seen
from limbeck.terms import Match


class Attention(Member):
    """A target for every peer: the peers' logits, mixed by how well its query fits their keys, its own included.

    Args:
        peers: Names.
        width: Of their pooled features.
        factor: How much narrower queries and keys are.
        detach: Whether the mixed logits are constants; the weights never are, as nothing else trains them.
    """

    def __init__(self, peers: Sequence[str], width: int, factor: int, *, detach: bool):
        super().__init__()
        self.peers, self.detach = tuple(peers), detach
        self.reads = tuple(f"{name}.{tap}" for name in peers for tap in ("pooled", "logits"))
        self.query = nn.Linear(width, max(1, width // factor), bias=False)
        self.key = nn.Linear(width, max(1, width // factor), bias=False)

    def forward(self, seen: Seen) -> Outputs:
        pooled = torch.stack([seen[f"{name}.pooled"] for name in self.peers], dim=1)  # (N, M, width)
        logits = torch.stack([seen[f"{name}.logits"] for name in self.peers], dim=1)  # (N, M, C)
        weights = torch.einsum("nad,nbd->nab", self.query(pooled), self.key(pooled)).softmax(dim=2)
        mixed = torch.einsum("nab,nbc->nac", weights, logits.detach() if self.detach else logits)
        return dict(zip(self.peers, mixed.unbind(dim=1), strict=True))


def okddip(student: Network, setting: Setting, *, peers: Sequence[Network] = (), copies: int = 3,
           form: Literal["branches", "networks"] = "branches", split: str | None = None, temperature: float = 3.0,
           kl: float = 1.0, warm_up: float = 80 / 300, factor: int = 8, detach: bool = False) -> Method:
    """Peer a: CE + kl * ramp * T^2 KL(t_a || a), t_a = sum_b softmax_b(q_a k_b) z_b; leader: the same, to the mean.

    q_a = W_q h_a and k_b = W_k h_b of the pooled features h, one W_q and one W_k for all peers. The sum is over peers,
    a among them, and so is the leader's mean of logits; the leader, which is the student, has neither query nor key.

    Args:
        student: The leader, which ships.
        setting: The job.
        peers: Who learns beside it, as networks of their own whose pooled features have one width; none for copies.
        copies: Untrained peers, where none are given.
        form: Copies as `branches` on the student's trunk, of which the leader is one too, or as whole `networks`.
        split: The layer behind which branches part; None is the stage before the last.
        temperature: T.
        kl: Weight of the divergences.
        warm_up: Part of the run over which it rises as exp(-5 (1 - x)^2): 80 of 300 epochs.
        factor: How much narrower than the features queries and keys are.
        detach: A variant in which targets pull nobody but the attention's weights. As released, peers also move towards
            whom they teach, the leader included; to detach all of a target would leave the attention untrained.

    Raises:
        Mistake: If nobody is beside the student, the peers' features differ in width, or the network cannot be parted.

    Source: Chen et al., Online Knowledge Distillation with Diverse Peers, AAAI 2020, arXiv:1912.00350, and its code,
    which adds 1e-7 to the targets' probabilities.
    """
    whole_images("okddip", setting.task, "its attention is between one vector an image of each peer")
    networks = branched_or_group(student, peers, copies, setting.seed, form=form, split=split, taps=["pooled"])
    others = [name for name in networks if name != "student"]
    widths = [networks[name].shape("pooled")[-1] for name in others]
    if len(set(widths)) > 1:
        raise Mistake(f"okddip compares peers by pooled features of one width; got {widths}. Give networks.peers of "
                      f"one width, or choose dml.")
    distance, weight = partial(soft_kl, temperature=temperature), exponential_ramp(kl, over=warm_up)
    members: dict[str, Member] = {"attention": Attention(others, widths[0], factor, detach=detach),
                                  "mean": Ensemble([f"{name}.logits" for name in others])}
    pulls = {f"{name}/attention": (Match(f"{name}.logits", f"attention.{name}", distance, detach=False), weight)
             for name in others}
    pulls["student/mean"] = (Match("student.logits", "mean.logits", distance, detach=detach), weight)
    return online(networks, setting, pulls, members=members)
