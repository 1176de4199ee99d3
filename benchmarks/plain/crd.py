"""CRD: embeddings against memories of the other network's, with negatives that the data set draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plain.networks import WithFeatures, sgd


class CRD:
    """CE + 0.8 contrast, both ways."""

    def __init__(self, teacher: WithFeatures, student: WithFeatures, images: Tensor, count: int, width: int = 128):
        self.teacher, self.student, self.count = teacher.eval(), student.train(), count
        with torch.no_grad():
            widths = [network(images[:2])[3].shape[1] for network in (student, teacher)]
        self.embed = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.memory = [F.normalize(torch.randn(count, width)) for _ in range(2)]
        self.constants: list[Tensor] = []
        self.optimizer = sgd(student, self.embed)

    def step(self, images: Tensor, targets: Tensor, index: Tensor) -> None:
        with torch.no_grad():
            source = self.teacher(images)[3]
        logits, _, _, own = self.student(images)
        embedded = [F.normalize(embed(x)) for embed, x in zip(self.embed, (own, source), strict=True)]
        loss = F.cross_entropy(logits, targets)
        for side in (0, 1):
            loss = loss + 0.8 * self.contrast(embedded[side], 1 - side, index, side)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for memory, new in zip(self.memory, embedded, strict=True):
                memory[index[:, 0]] = F.normalize(0.5 * memory[index[:, 0]] + 0.5 * new)

    def contrast(self, x: Tensor, other: int, index: Tensor, side: int) -> Tensor:
        """NCE of each image's own row of the other memory against its negatives' rows; `index` is (N, 1 + K)."""
        rows = self.memory[other].index_select(0, index.flatten()).view(*index.shape, -1)      # (N, 1 + K, D)
        scores = torch.bmm(rows, x[:, :, None]).squeeze(2).div(0.07).exp()
        if len(self.constants) <= side:
            self.constants.append(scores.mean().detach() * self.count)
        scores = scores / self.constants[side]
        noise = (index.shape[1] - 1) / self.count
        right = (scores[:, 0] / (scores[:, 0] + noise + 1e-7)).log().sum()
        wrong = (noise / (scores[:, 1:] + noise + 1e-7)).log().sum()
        return -(right + wrong) / len(x)
