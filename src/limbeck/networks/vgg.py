"""VGG with batch norm for small images, with the parameter names of RepDistiller and mdistiller.

Source: Simonyan and Zisserman, arXiv:1409.1556; one linear layer instead of three, as RepDistiller has it. A block ends
with its last batch norm; the ReLU after it stands outside, so that both sides of it can be tapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.networks.convolutions import chain, conv3x3, he_normal, quiet_linear
from limbeck.networks.staged import Staged, head, name_taps

WIDTHS = (64, 128, 256, 512, 512)


class PoolIfLarge(nn.Module):
    """Max-pooling of maps that are at least 8×8, and nothing otherwise.

    Behind three poolings those are the maps of images of at least 64×64: RepDistiller pools here for 64×64, not for
    32×32.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if min(x.shape[-2:]) >= 8 else x


def vgg(convolutions: Sequence[int], num_classes: int = 100) -> Staged:
    """The VGG with so many 3×3 convolutions in each of its five blocks; max-pooling between them.

    The first block is the stem; stages 1 to 4 are the others.
    """
    layers: dict[str, nn.Module] = {}
    width_in = 3
    for b, (number, width) in enumerate(zip(convolutions, WIDTHS, strict=True)):
        widths = [width_in] + [width] * number
        layers[f"block{b}"] = chain(*(conv3x3(widths[m], widths[m + 1], bias=True) for m in range(number)))
        layers[f"relu{b}"] = nn.ReLU()
        if b < 4:
            layers[f"pool{b}"] = nn.MaxPool2d(2) if b < 3 else PoolIfLarge()
        width_in = width
    stages = range(1, 5)
    network = Staged(
        layers | head("classifier", quiet_linear(WIDTHS[-1], num_classes)),
        taps=name_taps(stem="relu0", stages=[f"relu{b}" for b in stages], before=[f"block{b}" for b in stages],
                       classifier="classifier"),
        norm_before_relu=[f"block{b}.{3 * convolutions[b] - 2}" for b in stages],
    )
    he_normal(network)
    return network


vgg8 = partial(vgg, (1, 1, 1, 1, 1))
vgg11 = partial(vgg, (1, 1, 2, 2, 2))
vgg13 = partial(vgg, (2, 2, 2, 2, 2))
vgg16 = partial(vgg, (2, 2, 3, 3, 3))
vgg19 = partial(vgg, (2, 2, 4, 4, 4))
