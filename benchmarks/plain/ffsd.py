"""FFSD with two students and a leader: three networks, a fusion, a decoder and two self-distillation modules."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.networks import WithFeatures, sgd


def depthwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(inputs),
                         nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Carrier(nn.Module):
    """Deep map to pseudo maps of the shallower stages, deepest first."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(deep, shallow, 3, 2, 1, output_padding=1, bias=False),
                          nn.BatchNorm2d(shallow), nn.ReLU())
            for shallow, deep in reversed(list(pairwise(widths))))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def attention(x: Tensor) -> Tensor:
    return x.pow(2).mean(1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference at length 1."""
    return (F.normalize(a.flatten(1)) - F.normalize(b.flatten(1))).pow(2).mean()


def kl(student: Tensor, teacher: Tensor, t: float = 2.0) -> Tensor:
    return F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher.detach() / t, 1), reduction="batchmean") * t * t


class FFSD:
    """One step of all players."""

    def __init__(self, network: Callable[[], WithFeatures], widths: list[int], classes: int):
        self.students = nn.ModuleList(network() for _ in range(2))
        self.leader = network()
        last = widths[-1]
        self.fuse, self.classify = depthwise(2 * last, last), nn.Linear(last, classes)
        self.decode = depthwise(last, 2 * last)
        self.carriers = nn.ModuleList(Carrier(widths) for _ in range(2))     # the second student's, the leader's
        self.optimizers = [sgd(self.students[0]), sgd(self.students[1]), sgd(self.leader, self.decode),
                           sgd(self.fuse, self.classify), torch.optim.Adam(self.carriers.parameters(), lr=1e-5)]

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        (z1, _, f1, _), (z2, _, f2, _) = [student(images) for student in self.students]
        leading, _, f, _ = self.leader(images)
        deep = torch.cat([f1[-1], f2[-1]], 1).detach()
        fused = self.fuse(deep)
        fusion = self.classify(fused.mean((2, 3)))
        ensemble = (z1 + z2).detach() / 2
        loss = sum(F.cross_entropy(z, targets) for z in (z1, z2, fusion, leading))
        loss = loss + kl(z1, z2) + kl(z2, z1) + kl(fusion, ensemble) + kl(leading, fusion)
        target, shifted = self.diverse(f1[-1].detach())
        loss = loss + 1e-5 * (F.normalize(attention(f2[-1]).flatten(1)) - target.flatten(1)).pow(2).mean()
        loss = loss + 10 * (distance(attention(f[-1]), attention(fused.detach()))
                            + distance(attention(self.decode(f[-1])), attention(deep)))
        for carrier, own, source, weight in ((self.carriers[0], f2, shifted, 1e-5),
                                             (self.carriers[1], f, fused.detach(), 10.0)):
            carrier.eval()
            with torch.no_grad():
                carried = carrier(source)
            carrier.train()
            rebuilt = carrier(own[-1].detach())
            for level, there, back in zip(reversed(own[:-1]), carried, rebuilt, strict=True):
                loss = loss + weight * distance(attention(level), attention(there))
                true = level.detach()
                loss = loss + 1000 * (distance(back, true) + distance(attention(back), attention(true)))
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    @staticmethod
    def diverse(previous: Tensor) -> tuple[Tensor, Tensor]:
        """Where the student before looked least, as attention and as features."""
        own = attention(previous)
        length = own.flatten(1).norm(dim=1)[:, None, None]
        own = own / length
        kept = max(1, own[0].numel() // 3)
        threshold = own.flatten(1).kthvalue(kept, dim=1).values[:, None, None]
        target = (length / 2 - own) * (own - threshold).sign() + length / 2
        return target, previous + ((target - own) * length / previous.shape[1])[:, None]
