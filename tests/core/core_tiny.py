"""Networks of 8 channels for images of 16×16, and the least job around them. Classes of this module, so they pickle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from limbeck.members import STATISTICS, Network
from limbeck.method import Setting
from limbeck.seen import Batch, Clock
from limbeck.tasks.classification import Classification

CLASSES = 3
SIZE = (3, 16, 16)


def _stage(width_in: int, width: int, stride: int, activation: Callable[[], nn.Module],
           dropout: float) -> nn.Sequential:
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False), norm=nn.BatchNorm2d(width),
        act=activation(), drop=nn.Dropout(dropout)))


class Plain(nn.Sequential):
    """Two stages, the mean over positions, a linear head; it declares its taps."""

    def __init__(self, width: int = 8, *, activation: Callable[[], nn.Module] = nn.ReLU, dropout: float = 0.0):
        super().__init__(OrderedDict(
            stage1=_stage(3, width, 1, activation, dropout), stage2=_stage(width, width, 2, activation, dropout),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(width, CLASSES)))
        self.taps = {"stage1": "stage1", "stage1.pre": "stage1.norm", "stage2": "stage2", "stage2.pre": "stage2.norm",
                     "pooled": "fc:in"}


class Block(nn.Module):
    """A residual block as torchvision writes it: one ReLU, in place, that runs twice."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.beside = nn.Conv2d(width_in, width, 1, stride=stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.beside(x)
        return self.relu(out)


class Residual(nn.Module):
    """A stem and two stages of one block; it declares nothing."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, width, 2))
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def sequential(width: int = 8) -> nn.Sequential:
    """A VGG: convolutions, in-place ReLUs and pooling in one numbered row, and a classifier behind it."""
    features = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))
    return nn.Sequential(OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
                                     classifier=nn.Linear(width, CLASSES)))


class TokenBlock(nn.Module):
    """A transformer's block without its attention: what matters here is that tokens go in and out."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Tokens(nn.Module):
    """Patches of 4×4, a class token before them, eight blocks, a head on the class token."""

    def __init__(self, width: int = 8, blocks: int = 8):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(TokenBlock(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        return self.head(self.norm(self.blocks(x))[:, 0])


def network(module: nn.Module, *, name: str = "tiny", resize: bool = False,
            factory: Callable[[], nn.Module] | None = None) -> Network:
    """A module as a member, with CIFAR-100's statistics."""
    return Network(module, name=name, size=SIZE, statistics=STATISTICS["cifar100"], resize=resize, factory=factory)


def batch(seed: int = 0, images: int = 5, *, size: int = 16) -> Batch:
    """Random images, targets and places."""
    chance = torch.Generator().manual_seed(seed)
    return Batch(torch.rand(images, 3, size, size, generator=chance),
                 torch.randint(0, CLASSES, (images,), generator=chance), torch.arange(images))


def clock(step: int = 0, steps: int = 12, steps_per_epoch: int = 4) -> Clock:
    """A step of a run of three epochs."""
    return Clock(step, steps, steps_per_epoch)


def setting() -> Setting:
    """A classification job."""
    return Setting(Classification(), tuple("abc"), None, torch.arange(0), batch())
