"""Images a second on one core: our batches, and the usual pipeline that treats one image at a time.

Both give shuffled float32 batches of 32x32 images in [0, 1], cropped from 4 pixels of padding and mirrored at random.

    python benchmarks/batches.py [IMAGES] [BATCH_SIZE]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import get_args

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from limbeck.data import Augmentation, Batches, Split
from limbeck.data.augment import Padding
from limbeck.data.images import Images

REPEATS = 5


class OneByOne(Dataset[torch.Tensor]):
    """Pillow images through torchvision's transforms."""

    def __init__(self, pixels: torch.Tensor):
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        self.change = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
                                          transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.change(self.images[row])


def speed(epoch: Callable[[], Iterable[object]], images: int) -> float:
    """Images a second: the median of a few epochs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in epoch():
            pass
        seconds.append(time.perf_counter() - start)
    return images / median(seconds)


def main(images: int = 50_000, batch_size: int = 128) -> None:
    """Print the two speeds and their ratio."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    few = pixels[:images // 10]
    loader = DataLoader(OneByOne(few), batch_size, shuffle=True)
    usual = speed(lambda: loader, len(few))
    print(f"one by one: {usual:>9,.0f} images/s (Pillow, torchvision, DataLoader without workers)")
    for mode in get_args(Padding):
        batches = Batches(Split.whole(Images(pixels), None), batch_size, train=True,
                          augmentation=Augmentation("crop-flip", 4, mode))
        ours = speed(batches.epoch, images)
        print(f"ours:       {ours:>9,.0f} images/s (crop-flip, {mode}), {ours / usual:.0f} times as many")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
