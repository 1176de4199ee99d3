"""EnD2: one network learns the whole spread of an ensemble's beliefs, as the Dirichlet distribution of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from limbeck.errors import Mistake
from limbeck.losses import dirichlet_nll
from limbeck.members import Frozen, Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.process import Schedule, Scheduled
from limbeck.seen import Clock, Seen
from limbeck.terms import Term, full


def cooling(temperature: float, *, hold: float, fall: float) -> Schedule:
    """A temperature that is held for the first part of the run, then falls in a line to 1, and stays there.

    Args:
        temperature: The one at the start.
        hold: Part of the run for which it is held.
        fall: Part of the run over which it falls.
    """
    def at(clock: Clock) -> float:
        done = 1.0 if clock.progress >= hold + fall else max(0.0, clock.progress - hold) / max(fall, 1e-12)
        return temperature + (1 - temperature) * done
    return at


class Spread(Term):
    """How badly the student's distribution predicts what the ensemble's members believe.

    Args:
        ensemble: Addresses of their logits.
        temperature: T, by the clock.
        smoothing: How far beliefs are drawn to the uniform.
    """

    owner = "student"

    def __init__(self, ensemble: Sequence[str], temperature: Schedule, smoothing: float):
        super().__init__()
        self.reads = ("student.logits", *ensemble)
        self.temperature, self.smoothing = temperature, smoothing

    def forward(self, seen: Seen) -> Tensor:
        student, *others = self.reads
        members = torch.stack([full(seen.detached(address)) for address in others], dim=1)  # (N, M, C)
        with torch.autocast(members.device.type, enabled=False):
            return dirichlet_nll(full(seen[student]), members, temperature=self.temperature(seen.clock),
                                 smoothing=self.smoothing)


def end2(student: Network, setting: Setting, *, ensemble: Sequence[Network], temperature: float = 10.0,
         hold: float = 1 / 3, fall: float = 1 / 3, smoothing: float = 1e-3,
         targets: Literal["plain", "same"] = "plain") -> Method:
    """-T^2 * mean log density, under the student's Dirichlet with concentrations exp(z / T), of the members' beliefs.

    No labels are used. The mean of the student's Dirichlet at T = 1 is softmax(z), so that it classifies like any
    network; with a = exp(z), H[mean] - sum_c a_c / a_0 (psi(a_0 + 1) - psi(a_c + 1)) is how far it takes the members to
    disagree.

    Args:
        student: Learns.
        setting: The job.
        ensemble: Trained networks of the same classes, frozen; any number, of any architectures.
        temperature: T at the start.
        hold: Part of the run for which it is held.
        fall: Part of the run over which it then falls in a line to 1; 30 of 90 epochs for both in the code.
        smoothing: Of the members' beliefs, towards the uniform; also 1e-4 is seen.
        targets: What the ensemble looks at: `plain`, the images without augmentation, so that its targets are the same
            in every epoch, as published; `same`, what the student looks at.

    Raises:
        Mistake: If the ensemble is empty.

    Source: Malinin et al., Ensemble Distribution Distillation, ICLR 2020, arXiv:1905.00076; settings of a reproduction
    in TensorFlow. There the members' logits on plain images are stored once; here they are computed at each step: equal
    but for rounding, and dearer by a forward pass of each. Its learning rate (Adam, from 1e-3 to 1e-2 and back over 60
    of 90 epochs, then down) is the run's to set; auxiliary images without labels are not offered.
    """
    if not ensemble:
        raise Mistake("end2 learns from an ensemble; got no network. Give networks.ensemble=[RUN1, RUN2, RUN3].")
    whole_images("end2", setting.task, "its ensemble has one Dirichlet an image")
    view = 0 if targets == "plain" else None
    names = [f"member{k}" for k in range(1, len(ensemble) + 1)]
    spread = Spread([f"{name}.logits" for name in names], cooling(temperature, hold=hold, fall=fall), smoothing)
    return Method({"student": student}, {"spread": spread}, Scheduled({"spread": 1.0}),
                  frozen={name: Frozen(network, view=view) for name, network in zip(names, ensemble, strict=True)},
                  views=["plain"] if targets == "plain" else ())
