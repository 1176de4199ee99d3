"""FFL: peers learn from a classifier of their fused maps, which learns from the mean of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from limbeck.connectors import map_shape
from limbeck.losses import soft_kl
from limbeck.members import Network
from limbeck.method import Setting, Stage
from limbeck.methods.answers import whole_images
from limbeck.methods.fusing import Fusion
from limbeck.methods.leading import Pulls, own_optimizers
from limbeck.methods.online import branched_or_group, online
from limbeck.process import exponential_ramp
from limbeck.terms import Match, Supervise


def ffl(student: Network, setting: Setting, *, peers: Sequence[Network] = (), copies: int = 1,
        form: Literal["branches", "networks"] = "branches", split: str | None = None, temperature: float = 3.0,
        kl: float = 1.0, warm_up: float = 80 / 300) -> list[Stage]:
    """Each peer k: CE + kl * ramp * T^2 KL(fusion || k); the fusion: CE + kl * ramp * T^2 KL(mean || fusion).

    The fusion's CE and KL pull the peers too, through their last maps. As targets, fusion and mean are constants.

    Args:
        student: Learns, and ships.
        setting: The job.
        peers: Who learns beside it, of any architecture; none for copies. Maps of other shapes are brought to that of
            the student's by a 1 x 1 convolution with norm and ReLU before they are fused.
        copies: Untrained peers, where none are given.
        form: Copies as `branches` on the student's trunk, or as whole `networks`.
        split: The layer behind which branches part; None is the stage before the last.
        temperature: T.
        kl: Weight of the divergences.
        warm_up: Part of the run over which it rises as exp(-5 (1 - x)^2): 80 of 300 epochs.

    Raises:
        Mistake: If nobody is beside the student, or the network cannot be parted there.

    Source: Kim et al., Feature Fusion for Online Mutual Knowledge Distillation, ICPR 2020, arXiv:1904.09058, and its
    code, where the fusion's weight decay is 1e-5, as here. It has two peers of one architecture; the convolution for
    other ones is from memory.
    """
    whole_images("ffl", setting.task, "the classifier of its fused maps gives")
    last = student.stages[-1]
    networks = branched_or_group(student, peers, copies, setting.seed, form=form, split=split, taps=[last])
    shapes = {f"{name}.{peer.stages[-1]}": map_shape(peer.shape(peer.stages[-1])) for name, peer in networks.items()}
    fusion = Fusion(list(shapes), list(shapes.values()), student.num_classes, detach=False)
    distance, weight = partial(soft_kl, temperature=temperature), exponential_ramp(kl, over=warm_up)
    pulls: Pulls = {f"{name}/fusion": (Match(f"{name}.logits", "fusion.logits", distance), weight) for name in networks}
    pulls |= {"fusion/ce": (Supervise("fusion", setting.task), 1.0),
              "fusion/mean": (Match("fusion.logits", "ensemble.logits", distance), weight)}
    members = {"fusion": fusion}
    return [Stage(online(networks, setting, pulls, members=members), optimizers=own_optimizers(members))]
