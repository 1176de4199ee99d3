"""CC: how images of a batch correlate in a trained embedding of the student is pulled to the teacher's, trained too."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from limbeck.losses import correlation_congruence
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import whole_images
from limbeck.methods.offline import offline
from limbeck.terms import Match


def cc(student: Network, teacher: Network, setting: Setting, *, weight: float = 0.02,
       mode: Literal["code", "gaussian", "bilinear"] = "code", width: int = 128, gamma: float = 0.4,
       order: int = 2) -> Method:
    """CE + weight * distance of correlations, between linear embeddings of both pooled features.

    Args:
        student: Learns.
        teacher: Frozen; its embedding learns.
        setting: The job.
        weight: Of the distance; 0.02 in the standard benchmark. torchdistill has 0.003 with a kernel.
        mode: `code`, the authors' product of neighbouring images' gaps, or the paper's correlation matrix by a
            `gaussian` or `bilinear` kernel.
        width: Of the embeddings.
        gamma: Of the `gaussian` kernel.
        order: Of its expansion.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv:1904.01802. `code` is what
    the authors gave to RepDistiller and is in its table; it is not the paper's loss. Kernels as in torchdistill, whose
    embeddings are not brought to length 1 either. Correlations are per rank.
    """
    whole_images("cc", setting.task, "it compares a batch by one vector an image")
    (own,), (theirs,) = student.shape("pooled"), teacher.shape("pooled")
    distance = partial(correlation_congruence, mode=mode, gamma=gamma, order=order)
    term = Match("student.pooled", "teacher.pooled", distance, connect=nn.Linear(own, width),
                 connect_source=nn.Linear(theirs, width))
    return offline(student, teacher, setting, {"correlation": (term, weight)})
