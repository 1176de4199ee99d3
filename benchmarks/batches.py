"""Images a second on one core: our batches, and the usual pipeline that treats one image at a time.

Both give shuffled float32 batches of 32x32 images in [0, 1], cropped from 4 pixels of padding and mirrored at random.

    python benchmarks/batches.py [--images 50000] [--batch 128] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import get_args

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from limbeck.data import Augmentation, Batches, Split
from limbeck.data.augment import Padding
from limbeck.data.images import Images
from limbeck.runs import about

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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (given.images, 3, 32, 32), dtype=torch.uint8)
    few = pixels[:given.images // 10]
    loader = DataLoader(OneByOne(few), given.batch, shuffle=True)
    found = {"one by one (Pillow, torchvision, DataLoader without workers)": speed(lambda: loader, len(few))}
    for mode in get_args(Padding):
        batches = Batches(Split.whole(Images(pixels), None), given.batch, train=True,
                          augmentation=Augmentation("crop-flip", 4, mode))
        found[f"limbeck (crop-flip, {mode})"] = speed(batches.epoch, given.images)
    for who, count in found.items():
        print(f"{count:>9,.0f} images/s  {who}")
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        record = {"about": about(images=given.images, batch=given.batch, threads=1), "images_per_second": found}
        (given.out / "batches-cpu.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
