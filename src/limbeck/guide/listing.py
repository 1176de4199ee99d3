"""What `limbeck list` and `limbeck taps` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from limbeck.methods import METHODS, SEARCHED

if TYPE_CHECKING:
    from limbeck.members import Network


def of(what: str) -> str:
    """The list of methods, networks, data or recipes, a line each."""
    return {"methods": _methods, "networks": _networks, "data": _data, "recipes": _recipes}[what]()


def _methods() -> str:
    lines = [(name, text.partition(": ")[2] + (" [searches first]" if name in SEARCHED else ""))
             for name, text in METHODS.items()]
    return _columns([*lines, ("file.py:function", "a loss of your own, under @limbeck.loss")])


def _networks() -> str:
    from limbeck.networks import ZOO

    more = [("timm:NAME", "any network of timm"),
            ("torchvision:NAME", "any classifier or segmentation network of torchvision"),
            ("hf:REPO, hf:FOLDER", "any image classifier of Hugging Face (extra: hf)"),
            ("distilled:timm:NAME", "a vision transformer of timm, given a distillation token"),
            ("py:module:factory", "your own"), ("FOLDER", "the network of a finished run")]
    return _columns([(name, entry.about) for name, entry in ZOO.items()] + more)


def _data() -> str:
    return _columns([
        ("digits", "scikit-learn's 1,797 handwritten digits, 8 x 8"),
        ("FOLDER", "images by class: FOLDER/train/CLASS/*.png, FOLDER/test/CLASS/*.png, or FOLDER/CLASS/*"),
        ("hf:NAME, hf:FOLDER", "an image data set of the Hugging Face hub, or a local folder of its parquet files"),
        ("packed:FOLDER", "parts that benchmarks/pack.py made of a parquet folder"),
        ("cifar10:FOLDER", "CIFAR-10 in its python layout"),
        ("cifar100:FOLDER", "CIFAR-100 in its python layout"),
    ])


def _recipes() -> str:
    from limbeck.sweeps import recipes

    return recipes.listed()


def taps_of(name: str, size: int | None = None, teacher: str | None = None, *, everything: bool = False) -> str:
    """What can be tapped in a network: canonical taps, their shapes, strides, and the layers that they stand for.

    Args:
        name: The network.
        size: Side of its images, in pixels; None is the one that either insists on, or 32.
        teacher: Another network: which of its stages would teach which of the first is listed too.
        everything: List every layer that returns a tensor, too.
    """
    from limbeck.config import NetworkSettings
    from limbeck.pairing import shown
    from limbeck.sources import check_network, untrained

    settings = [NetworkSettings.model_validate(one) for one in (name, teacher) if one is not None]
    for one in settings:
        check_network(one)
    side = size or max(untrained(one.name).size[1] for one in settings)
    network, *others = [untrained(one.name, side) for one in settings]
    text = _taps(network, everything)
    return "\n\n".join([text, *(f"{_taps(other, everything)}\n\n{shown(network, other)}" for other in others)])


def _taps(network: Network, everything: bool) -> str:
    more = [address for address in network.found.layouts if ":in" not in address] if everything else []
    network.tap([*network.addresses, *more])
    rows = [_row(network, tap) for tap in sorted(network.addresses, key=_depth)]
    rows += [_row(network, tap) for tap in more if tap not in network.addresses.values()]
    _, height, width = network.size
    return (f"{network.name} at {height} x {width}; * marks stages. Any layer can be tapped by its path, with :in for "
            f"its input, #2 for its second call, and read as :map, :tokens, :cls or :prefix\n"
            + _columns([(" ", "tap", "shape", "stride", "layer"), *rows]))


def _row(network: Network, tap: str) -> tuple[str, ...]:
    from limbeck.pairing import stride

    step = stride(network, network.as_map(tap)) if len(network.shape(tap)) > 1 and network.layout(tap) else None
    stage = "*" if tap in network.stages else " "
    return (stage, tap, " x ".join(map(str, network.shape(tap))), "" if step is None else f"{step:g}",
            network.addresses.get(tap, tap))


def _depth(tap: str) -> tuple[int, str]:
    order = {"stem": 0, "psp": 90, "aux": 91, "tokens": 96, "cls": 97, "pooled": 98}
    stage = tap.removeprefix("stage").partition(".")[0]
    return (order.get(tap, int(stage) if stage.isdigit() else 99), tap)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
