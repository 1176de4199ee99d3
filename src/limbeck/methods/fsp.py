"""FSP: from each stage to the next, the student's channels are to respond together as the teacher's do."""

from __future__ import annotations

from functools import partial
from typing import Literal

from limbeck import losses
from limbeck.connectors import AsMap, Each
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.none import none
from limbeck.methods.offline import check_channels, flows, initialised, offline
from limbeck.terms import Match


def fsp(student: Network, teacher: Network, setting: Setting, *, form: Literal["staged", "joint"] = "staged",
        weight: float = 1.0, mode: Literal["repdistiller", "torchdistill"] = "repdistiller",
        init_length: float = 1 / 8) -> Method | list[Stage]:
    """staged: first weight * sum over consecutive layers of the distance of flow matrices; then plain CE.

    The layers are the stem, where both networks have one, and the stages; they need equal channels in both networks.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `staged`, as published, or `joint` (ours): CE and the flows at once, from the start.
        weight: Of each pair of layers. 1 in RepDistiller's first stage; the 50 of its command belongs to its second,
            where nothing is weighed with it.
        mode: Which reading of the distance.
        init_length: Length of the first stage, in lengths of the run: 30 epochs beside 240 in the standard benchmark.

    Raises:
        Mistake: If a layer has other channels in the one network than in the other.

    Source: Yim et al., A Gift from Knowledge Distillation, CVPR 2017.
    """
    layers = flows(student, teacher, stem=True)
    check_channels("fsp", student, teacher, layers)
    distance = partial(losses.fsp, mode=mode)
    pulls = {name: (Match(own, source, distance, connect=Each(AsMap(), AsMap()), connect_source=Each(AsMap(), AsMap())),
                    weight) for name, (own, source) in layers.items()}
    if form == "joint":
        return offline(student, teacher, setting, pulls)
    return initialised(student, teacher, pulls, none(student, setting), length=init_length)
