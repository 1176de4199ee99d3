"""DistPro over 27 pathways: the search by the paper's recipe, and the retraining under given weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.networks import WithFeatures, sgd
from plain.reviewkd import hcl


class Gate(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attend(x)


def conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]


def transforms(own: int, theirs: int, size: int) -> list[nn.Module]:
    """The three transforms of a pair of maps."""
    middle, up = min(512, own, theirs), nn.Upsample((size, size))
    return [nn.Sequential(*conv(own, middle, 1), Gate(middle), up, *conv(middle, theirs, 3)),
            nn.Sequential(*conv(own, middle, 1), Gate(middle), up, *conv(middle, middle, 3), *conv(middle, theirs, 3)),
            nn.Sequential(*conv(own, middle, 3), nn.ReLU(), Gate(middle), *conv(middle, middle, 3), nn.ReLU(), up,
                          *conv(middle, theirs, 3))]


class Retrain:
    """CE + sum of weighted HCL over all pathways; the weights are those of the step."""

    def __init__(self, teacher: WithFeatures, student: WithFeatures, images: Tensor):
        self.teacher, self.student = teacher.eval(), student.train()
        with torch.no_grad():
            sources, own = teacher(images[:2])[1], student(images[:2])[1]
        self.paths = [(t, s) for t in range(len(sources)) for s in range(len(own))]
        self.transforms = nn.ModuleList(
            module for t, s in self.paths
            for module in transforms(own[s].shape[1], sources[t].shape[1], sources[t].shape[2]))
        self.weights = torch.ones(len(self.transforms))
        self.optimizer = sgd(student, self.transforms)

    def losses(self, images: Tensor, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits, and every pathway's distance."""
        logits, own, _, _ = self.student(images)
        distances = [hcl(self.transforms[3 * p + k](own[s]), sources[t])
                     for p, (t, s) in enumerate(self.paths) for k in range(3)]
        return logits, torch.stack(distances)

    def sources(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self.teacher(images)[1]

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        self.learn(images, targets, self.sources(images))

    def learn(self, images: Tensor, targets: Tensor, sources: list[Tensor]) -> None:
        logits, distances = self.losses(images, sources)
        loss = F.cross_entropy(logits, targets) + (self.weights * distances).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Search(Retrain):
    """The same with weights that are learned: a tentative step, held-out gradient there, a central difference along it.

    Args:
        held_out: Endless batches of held-out images and labels.
    """

    def __init__(self, teacher: WithFeatures, student: WithFeatures, images: Tensor, held_out: Any):
        super().__init__(teacher, student, images)
        self.held_out = held_out
        self.raw = torch.ones(len(self.transforms), requires_grad=True)
        self.raw_optimizer = torch.optim.Adam([self.raw], lr=0.05, betas=(0.5, 0.999))

    def normalised(self) -> Tensor:
        """Biased softmax: one more entry, 1, takes a share of its own."""
        return F.softmax(torch.cat([self.raw, torch.ones(1)]), 0)[:-1] * len(self.transforms)

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        sources = self.sources(images)
        parameters = list(self.student.parameters())
        saved = [p.detach().clone() for p in parameters]
        statistics = [b.clone() for b in self.student.buffers()]
        rate = self.optimizer.param_groups[0]["lr"]
        logits, distances = self.losses(images, sources)
        loss = F.cross_entropy(logits, targets) + (self.normalised().detach() * distances).sum()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.sub_(rate * g)
        held_images, held_targets, _ = next(self.held_out)
        value = F.cross_entropy(self.student(held_images)[0], held_targets)
        direction = torch.autograd.grad(value, parameters)
        epsilon = 0.01 / torch.sqrt(sum(v.pow(2).sum() for v in direction))
        sides = []
        with torch.no_grad():
            for sign in (1, -1):
                for p, s, g, v in zip(parameters, saved, gradients, direction, strict=True):
                    p.copy_(s - rate * g + sign * epsilon * v)
                sides.append(self.losses(images, sources)[1])
            for p, s in zip(parameters, saved, strict=True):
                p.copy_(s)
            for b, s in zip(self.student.buffers(), statistics, strict=True):
                b.copy_(s)
        slopes = -rate * (sides[0] - sides[1]) / (2 * epsilon)
        self.raw_optimizer.zero_grad()
        (slopes * self.normalised()).sum().backward()
        self.raw_optimizer.step()
        self.weights = self.normalised().detach()
        self.learn(images, targets, sources)
