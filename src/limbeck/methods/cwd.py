"""CWD: channel by channel, where the student sees something is pulled to where the teacher does."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from limbeck import losses
from limbeck.connectors import AsMap, projection
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import scenes
from limbeck.methods.offline import context, offline
from limbeck.terms import Match


def cwd(student: Network, teacher: Network, setting: Setting, *, form: Literal["logits", "feature"] = "logits",
        weight: float | None = None, temperature: float = 4.0, tap: str | None = None, ce: float = 1.0,
        everywhere: bool = False) -> Method:
    """ce * CE + weight * T^2 mean over channels of KL(teacher || student), each channel softmax(F / T) over places.

    The student's map is brought to the teacher's size first.

    Args:
        student: Learns.
        teacher: Frozen.
        setting: The job.
        form: `logits`: a channel is a class; `feature`: through a 1 x 1 convolution, batch norm and ReLU, which make
            the student's channels the teacher's.
        weight: Of the divergence; None: 3 for logits, 50 for features (the latter from memory; the authors' runs on
            file have 3 to 40).
        temperature: T; the authors' 4 for logits, 1 to 10 in their runs on features.
        tap: Of both networks, the feature; None: what the head's pyramid gives, else the last stage.
        ce: Weight of the supervised loss.
        everywhere: Let places without a label count too, as published.

    Raises:
        Mistake: If logits are to be compared and the task is another than segmentation.

    Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256. The
    authors' code does not let the feature's connector follow the rate's schedule; here it does.
    """
    own, source, connect = "logits", "logits", None
    if form == "logits":
        scenes("cwd on logits", setting.task, "a channel is a class")
    else:
        own, source = tap or context(student), tap or context(teacher)
        connect = nn.Sequential(projection(student.shape(own), teacher.shape(source)), nn.ReLU())
    match = Match(f"student.{own}", f"teacher.{source}", partial(losses.cwd, temperature=temperature), connect=connect,
                  connect_source=AsMap(), task=setting.task, by="maps", everywhere=everywhere)
    return offline(student, teacher, setting, {form: (match, weight or {"logits": 3.0, "feature": 50.0}[form])}, ce=ce)
