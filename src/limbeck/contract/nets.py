"""Networks of 8 channels, for images of 16 x 16 and scenes of 16 x 24: of each kind that methods must work on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 4
SIZE = (3, 16, 16)
SCENE = (3, 16, 24)


class TinyNet(nn.Module):
    """Three stages of conv, norm, ReLU; 8 channels wide by default."""

    def __init__(self, width: int = 8, num_classes: int = CLASSES, *, dropout: float = 0.0,
                 norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        widths = [width, width, 2 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        inputs = [width, *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=1 + (i > 0), padding=1, bias=False), norm(b), nn.ReLU())
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)
        self.taps = {"stem": "stem", **{f"stage{i + 1}": f"stages.{i}" for i in range(3)},
                     **{f"stage{i + 1}.pre": f"stages.{i}.1" for i in range(3)}, "pooled": "fc:in"}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits


class TinyViT(nn.Module):
    """Four blocks over 4 x 4 patches and a class token."""

    def __init__(self, width: int = 8, num_classes: int = CLASSES, *, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout, batch_first=True, norm_first=True)
            for _ in range(4))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.place
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.fc(self.norm(x)[:, 0])
        return logits


class TinyScene(nn.Module):
    """The tiny CNN's stages, a convolution for a pyramid, and a class for each of 4 x 6 places; an auxiliary head."""

    def __init__(self, width: int = 8, outputs: int = CLASSES, *, dropout: float = 0.0,
                 norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        super().__init__()
        body = TinyNet(width, norm=norm)
        self.stem, self.stages, taps = body.stem, body.stages, body.taps
        self.pyramid = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        self.dropout, self.head = nn.Dropout2d(dropout), nn.Conv2d(width, outputs, 1)
        self.beside = nn.Conv2d(width, outputs, 1)
        self.taps = {tap: path for tap, path in taps.items() if tap != "pooled"} | {"psp": "pyramid", "aux": "beside"}
        self.auxiliary = {"aux": 0.4}

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[1](self.stages[0](self.stem(x)))
        self.beside(x)
        logits: Tensor = self.head(self.dropout(self.pyramid(self.stages[2](x))))
        return logits


class TinyDepth(nn.Sequential):
    """The tiny CNN's stages, a doubling of their map, and a number for each of 8 x 12 places."""

    def __init__(self, width: int = 8, *, dropout: float = 0.0, norm: Callable[[int], nn.Module] = nn.BatchNorm2d):
        body = TinyNet(width, norm=norm)
        super().__init__(body.stem, *body.stages, nn.ConvTranspose2d(2 * width, width, 2, stride=2, bias=False),
                         norm(width), nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(width, 1, 3, padding=1))
        self.taps = {"stem": "0", **{f"stage{i}": f"{i}" for i in range(1, 4)},
                     **{f"stage{i}.pre": f"{i}.1" for i in range(1, 4)}, "decoder1": "6"}


def tiny_deit(width: int = 8, num_classes: int = CLASSES, *, dropout: float = 0.0) -> nn.Module:
    """timm's transformer with a distillation token: four blocks over 4 x 4 patches."""
    from timm.models.deit import VisionTransformerDistilled

    return VisionTransformerDistilled(img_size=SIZE[1], patch_size=4, embed_dim=width, depth=4, num_heads=2,
                                      mlp_ratio=2, num_classes=num_classes, proj_drop_rate=dropout)


NETS: dict[str, Callable[..., nn.Module]] = {"cnn": TinyNet, "vit": TinyViT, "deit": tiny_deit, "scene": TinyScene,
                                             "room": TinyDepth}
OF_MAPS = {"segmentation": "scene", "depth": "room"}
"""Which of these answer a task with maps."""
