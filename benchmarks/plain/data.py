"""The usual pipeline of small images: one Pillow image at a time through torchvision's transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class SmallImages(Dataset[Any]):
    """Images, labels and places; with `negatives`, as many places of other classes too, drawn for each image (CRD).

    Args:
        pixels: uint8 (N, 3, H, W).
        labels: (N,).
        negatives: How many.
    """

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor, negatives: int = 0):
        self.images = [Image.fromarray(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
        self.targets, self.negatives = labels.tolist(), negatives
        self.classes = list(range(int(labels.max()) + 1))
        self.change = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
                                          transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        places = np.arange(len(self.targets))
        self.others = [places[labels.numpy() != c] for c in self.classes] if negatives else []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int, Any]:
        label = self.targets[place]
        image = self.change(self.images[place])
        if not self.negatives:
            return image, label, place
        others = self.others[label]
        drawn = np.random.choice(others, self.negatives, replace=self.negatives > len(others))
        return image, label, np.hstack([[place], drawn])


def loader(data: SmallImages, batch_size: int, steps: int, *, workers: int = 2) -> DataLoader[Any]:
    """A random part of the images that lasts so many steps, decoded by worker processes that stay."""
    sampler = RandomSampler(data, num_samples=batch_size * steps)
    return DataLoader(data, batch_size, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
