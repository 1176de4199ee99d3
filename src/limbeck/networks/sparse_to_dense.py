"""Sparse-to-dense: a ResNet and a decoder that doubles its map four times, from RGB (and sparse depth) to depth.

Source: Ma and Karaman, Sparse-to-Dense: Depth Prediction from Sparse Depth Samples and a Single Image, ICRA 2018,
arXiv:1709.07492. Names are those of the authors' PyTorch code, whose weights load: specs/models.md section 8. Their
last layer brings the map to 228×304; here it stays at half the images' size, and who asks brings it to theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from limbeck.networks.convolutions import conv1x1, conv3x3, he_normal
from limbeck.networks.dilated import DEPTHS, Body, resnet
from limbeck.networks.pspnet import dense_taps
from limbeck.networks.resnet import BasicBlock


class Unpool(nn.Module):
    """A map twice as large, each value at the top left of its four places and zeros at the others."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        spread = x.new_zeros(n, c, h, 2, w, 2)
        spread[:, :, :, 0, :, 0] = x
        return spread.view(n, c, 2 * h, 2 * w)


def _deconvolution(width: int, *, kernel: int) -> nn.Module:
    """A transposed convolution to half the channels and twice the size, norm, ReLU."""
    up = nn.ConvTranspose2d(width, width // 2, kernel, stride=2, padding=(kernel - 1) // 2, output_padding=kernel % 2,
                            bias=False)
    return nn.Sequential(OrderedDict({f"deconv{kernel}": up, "batchnorm": nn.BatchNorm2d(width // 2),
                                      "relu": nn.ReLU()}))


def _conv5x5(width_in: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, 5, padding=2, bias=False)


def _up_convolution(width: int) -> nn.Module:
    """Unpooling, a 5×5 convolution to half the channels, norm, ReLU."""
    return nn.Sequential(OrderedDict(unpool=Unpool(), conv=_conv5x5(width, width // 2),
                                     batchnorm=nn.BatchNorm2d(width // 2), relu=nn.ReLU()))


class UpProjection(nn.Module):
    """Unpooling; a 5×5 and a 3×3 convolution beside a single 5×5 one; a ReLU after their sum.

    Args:
        width: Channels that come in; half of them go out.
    """

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.unpool = Unpool()
        self.upper_branch = nn.Sequential(OrderedDict(
            conv1=_conv5x5(width, half), batchnorm1=nn.BatchNorm2d(half), relu=nn.ReLU(), conv2=conv3x3(half, half),
            batchnorm2=nn.BatchNorm2d(half)))
        self.bottom_branch = nn.Sequential(OrderedDict(conv=_conv5x5(width, half), batchnorm=nn.BatchNorm2d(half)))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.unpool(x)
        return self.relu(self.upper_branch(x) + self.bottom_branch(x))


DECODERS: dict[str, Callable[[int], nn.Module]] = {
    "deconv2": partial(_deconvolution, kernel=2), "deconv3": partial(_deconvolution, kernel=3),
    "upconv": _up_convolution, "upproj": UpProjection}
"""What doubles a map and halves its channels, by the authors' names."""


class SparseToDense(nn.Sequential):
    """A body, a 1×1 convolution to half its channels, four doublings, a 3×3 convolution to one value a place.

    Attributes:
        taps: `stem`, `stage1`..., `stage1.pre`..., `decoder1`...`decoder4`.

    Args:
        body: Up to the last stage, a 32nd of the image's size.
        decoder: A key of `DECODERS`.
        values: Channels of the output: 1 for depth.
    """

    def __init__(self, body: Body, decoder: str, values: int):
        deep = body.widths[3]
        doublings = {f"layer{number}": DECODERS[decoder](deep // 2**number) for number in range(1, 5)}
        further = {"conv2": conv1x1(deep, deep // 2), "bn2": nn.BatchNorm2d(deep // 2),
                   "decoder": nn.Sequential(OrderedDict(doublings)), "conv3": conv3x3(deep // 32, values)}
        super().__init__(OrderedDict({**body.layers, **further}))
        self.taps = {**dense_taps(body), **{f"decoder{number}": f"decoder.layer{number}" for number in range(1, 5)}}
        he_normal(self)
        for layer in further["decoder"].modules():  # as the authors' code: fan-in, where the others have fan-out
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=(2 / (layer.kernel_size[0] ** 2 * layer.in_channels)) ** 0.5)


def sparse_to_dense(depth: int, decoder: str, num_classes: int = 1, *, channels: int = 3) -> SparseToDense:
    """The network of a ResNet's depth; `num_classes` is what a place is told of, 1 for depth."""
    kind, blocks = DEPTHS[depth]
    return SparseToDense(resnet(kind, blocks, rates=(1, 1, 1, 1), channels=channels), decoder, num_classes)


def _light(stem: int, widths: Sequence[int], blocks: int, num_classes: int = 1, *,
           channels: int = 3) -> SparseToDense:
    body = resnet(BasicBlock, (blocks,) * 4, stem=(stem,), widths=widths, rates=(1, 1, 1, 1), channels=channels)
    return SparseToDense(body, "deconv3", num_classes)


sparse_to_dense_resnet18 = partial(sparse_to_dense, 18, "deconv2")
sparse_to_dense_resnet50 = partial(sparse_to_dense, 50, "deconv2")
sparse_to_dense_resnet18_deconv3 = partial(sparse_to_dense, 18, "deconv3")
sparse_to_dense_resnet50_deconv3 = partial(sparse_to_dense, 50, "deconv3")
sparse_to_dense_resnet18_upconv = partial(sparse_to_dense, 18, "upconv")
sparse_to_dense_resnet50_upconv = partial(sparse_to_dense, 50, "upconv")
sparse_to_dense_resnet18_upproj = partial(sparse_to_dense, 18, "upproj")
sparse_to_dense_resnet50_upproj = partial(sparse_to_dense, 50, "upproj")
sparse_to_dense_small = partial(_light, 32, (32, 64, 128, 256), 2)
sparse_to_dense_tiny = partial(_light, 16, (16, 32, 64, 128), 1)
