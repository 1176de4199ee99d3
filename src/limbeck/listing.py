"""What `limbeck list` and `limbeck taps` say."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.methods import METHODS, SEARCHED


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
    from limbeck import recipes

    return recipes.listed()


def taps_of(name: str, size: int) -> str:
    """A network's canonical taps, the layers they stand for, and their shapes at some image size."""
    from limbeck.config import NetworkSettings
    from limbeck.members import STATISTICS, Network
    from limbeck.sources import check_network, untrained

    settings = NetworkSettings.model_validate(name)
    check_network(settings)
    module, fixed = untrained(settings.name, classes=10)
    side = fixed or size
    network = Network(module, name=settings.name, size=(3, side, side), statistics=STATISTICS["identity"])
    network.tap(network.addresses)
    rows = [(tap, " x ".join(map(str, network.shape(tap))), address) for tap, address in network.addresses.items()]
    head = (f"{name} at {side} x {side}; any module path can be tapped too, with :in for its input, "
            f"#2 for its second call\n")
    return head + _columns(sorted(rows, key=lambda row: _depth(row[0])))


def _depth(tap: str) -> tuple[int, str]:
    order = {"stem": 0, "psp": 90, "aux": 91, "pooled": 98, "logits": 99}
    stage = tap.removeprefix("stage").partition(".")[0]
    return (order.get(tap, int(stage) if stage.isdigit() else 97), tap)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
