"""ReviewKD: levels fused from deep to shallow, and the hierarchical context loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.networks import WithFeatures, sgd


class Fuse(nn.Module):
    """One attention-based fusion."""

    def __init__(self, channels: int, middle: int, wide: int, *, attention: bool):
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.widen = nn.Sequential(nn.Conv2d(middle, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide))
        self.attention = nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid()) if attention else None

    def forward(self, x: Tensor, deeper: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        x = self.narrow(x)
        if self.attention is not None:
            deeper = F.interpolate(deeper, x.shape[-2:])
            weights = self.attention(torch.cat([x, deeper], 1))
            x = x * weights[:, :1] + deeper * weights[:, 1:]
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size))
        return self.widen(x), x


def hcl(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance at the full size and at 4, 2 and 1, each half as heavy as the one before."""
    loss, total, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[2]:
            weight /= 2
            loss = loss + weight * F.mse_loss(F.adaptive_avg_pool2d(student, size),
                                              F.adaptive_avg_pool2d(teacher, size))
            total += weight
    return loss / total


class ReviewKD:
    """CE + 5 sum of HCL over three stages and the pooled feature."""

    def __init__(self, teacher: WithFeatures, student: WithFeatures, images: Tensor):
        self.teacher, self.student = teacher.eval(), student.train()
        with torch.no_grad():
            sources, own = self.sources(images[:2]), self.own(images[:2])[1]
        self.sizes = [source.shape[2] for source in sources]
        middle = min(512, own[-1].shape[1])
        self.fusions = nn.ModuleList(Fuse(x.shape[1], middle, source.shape[1], attention=x is not own[-1])
                                     for x, source in zip(own, sources, strict=True))
        self.optimizer = sgd(student, self.fusions)

    def sources(self, images: Tensor) -> list[Tensor]:
        _, before, _, pooled = self.teacher(images)
        return [*before, pooled[:, :, None, None]]

    def own(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        logits, _, after, pooled = self.student(images)
        return logits, [*after, pooled[:, :, None, None]]

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        with torch.no_grad():
            sources = self.sources(images)
        logits, levels = self.own(images)
        loss, deeper = F.cross_entropy(logits, targets), None
        for fusion, level, size, source in reversed(list(zip(self.fusions, levels, self.sizes, sources, strict=True))):
            fused, deeper = fusion(level, deeper, size)
            loss = loss + 5.0 * hcl(fused, source)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
