"""Small images and data sets that the tests of the data make for themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data.images import Images, Split


@pytest.fixture
def noise() -> Callable[..., torch.Tensor]:
    """Random uint8 images (N, 3, H, W)."""

    def make(n: int, height: int = 8, width: int = 8, seed: int = 0) -> torch.Tensor:
        chance = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=chance)

    return make


@pytest.fixture
def split(noise: Callable[..., torch.Tensor]) -> Callable[..., Split]:
    """A labelled split in memory; its classes take turns."""

    def make(n: int, side: int = 8, classes: int = 3) -> Split:
        return Split.whole(Images(noise(n, side, side)), torch.arange(n) % classes)

    return make


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """A folder train/CLASS/*.png, test/CLASS/*.png of random images."""

    def make(per_class: int = 4, height: int = 12, width: int = 12, classes: tuple[str, ...] = ("ant", "bee"),
             test: str | None = "test", folder: str = "photographs") -> Path:
        chance = np.random.default_rng(0)
        for part in ("train", test) if test else ("",):
            for name in classes:
                (tmp_path / folder / part / name).mkdir(parents=True)
                for i in range(per_class):
                    image = Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))
                    image.save(tmp_path / folder / part / name / f"{i}.png")
        return tmp_path / folder

    return make
