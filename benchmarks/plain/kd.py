"""KD and DKD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.networks import sgd


class KD:
    """0.1 CE + 0.9 T^2 KL."""

    def __init__(self, teacher: nn.Module, student: nn.Module, temperature: float = 4.0):
        self.teacher, self.student, self.temperature = teacher.eval(), student.train(), temperature
        self.optimizer = sgd(student)

    def loss(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        t = self.temperature
        soft = F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="batchmean") * t * t
        return 0.1 * F.cross_entropy(student, targets) + 0.9 * soft

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        with torch.no_grad():
            teacher = self.teacher(images)
        loss = self.loss(self.student(images), teacher, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class DKD(KD):
    """CE + TCKD + 8 NCKD."""

    def loss(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        t, answer = self.temperature, F.one_hot(targets, student.shape[1]).bool()
        p_student, p_teacher = F.softmax(student / t, 1), F.softmax(teacher / t, 1)
        binary = [torch.stack([p[answer], 1 - p[answer]], 1).clamp_min(1e-8) for p in (p_student, p_teacher)]
        target = F.kl_div(binary[0].log(), binary[1], reduction="batchmean") * t * t
        others = [(z / t).masked_fill(answer, -1000.0) for z in (student, teacher)]
        rest = F.kl_div(F.log_softmax(others[0], 1), F.softmax(others[1], 1), reduction="batchmean") * t * t
        return F.cross_entropy(student, targets) + target + 8 * rest
