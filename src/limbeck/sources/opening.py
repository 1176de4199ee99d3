"""A network by its settings: built or opened, its weights loaded, its images' size and statistics found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.config import NetworkSettings
from limbeck.data import Data
from limbeck.errors import Mistake, nearest
from limbeck.members import STATISTICS, Network, Statistics
from limbeck.networks.checkpoints import load_into, read_state
from limbeck.sources.known import DESCRIPTION, description, is_run, known_classes
from limbeck.sources.naming import BY_ORDER, Names, match_classes
from limbeck.sources.origin import DISTILLED, WITH_WEIGHTS, Origin
from limbeck.sources.origins import check, origin_of
from limbeck.tasks import Task

_WEIGHTS = "student.safetensors"
_Places = tuple[Sequence[int] | None, str | None]
"""Which of a network's logits it answers with, None for all; and why they are none for the data, if so."""


def check_network(settings: NetworkSettings) -> None:
    """Refuse what cannot be a network, before anything is read or built.

    Raises:
        Mistake: For an unknown name, a missing package, file or folder.
    """
    kind = settings.name.partition(":")[0]
    if isinstance(settings.classes, str) and settings.classes != BY_ORDER and not Path(settings.classes).is_file():
        raise Mistake(f"classes of {settings.name} are a mapping, a YAML file of one, or {BY_ORDER}; there is no file "
                      f"'{settings.classes}'. Check the path.")
    if is_run(settings.name):
        return
    if kind == settings.name and ("/" in kind or kind.startswith(".")):
        raise Mistake(f"a network is needed; {settings.name} is no folder of a finished run (it holds no "
                      f"{DESCRIPTION}). Give the folder that --run named, once its job is done.")
    check(settings.name)
    if settings.weights not in (None, "pretrained") and not Path(str(settings.weights)).is_file():
        raise Mistake(f"weights for {settings.name} are needed; there is no file {settings.weights}. Check the path.")
    if settings.weights == "pretrained" and settings.name.removeprefix(DISTILLED).partition(":")[0] not in WITH_WEIGHTS:
        raise Mistake(f"{settings.name}@pretrained: only timm:, torchvision: and hf: networks come with weights of "
                      f"their own. Give a checkpoint's path behind the @.")


def open_network(settings: NetworkSettings, data: Data, *, finished: bool = False, features: bool = False,
                 say: Callable[[str], None] = lambda note: None) -> Network:
    """Build a network, load its weights, and tell it what images it gets.

    Args:
        settings: Name, weights, statistics, size, classes.
        data: What it will see; its classes and statistics.
        finished: It answers as it is, and learns no more: where it knows other classes than the data, or in another
            order, its logits are matched to the data's classes by name. Otherwise its head is one for the data.
        features: A finished network may know other classes altogether: then it says so in `unmatched`, keeps its own
            logits, and can teach by its features.
        say: Takes what was matched, and how images are resized.

    Raises:
        Mistake: If weights, classes or names do not fit.
    """
    if is_run(settings.name):
        return _from_run(Path(settings.name), settings, data, _Match(finished, features, say))
    own = known_classes(settings) if finished else None
    outputs = data.task.outputs(len(own or data.classes))
    source = origin_of(settings.name, outputs, settings.size, data.channels)
    pretrained = settings.weights == "pretrained"
    if pretrained and source.pretrained is None:
        raise Mistake(f"{settings.name}@pretrained has no weights for images of {settings.size} pixels. Leave `size` "
                      f"out: its images are then resized.")
    module = source.pretrained() if pretrained and source.pretrained else source.build()
    if settings.weights and not pretrained:
        load_into(module, read_state(Path(settings.weights)), settings.weights)
    fixed = settings.size or source.fixed_size
    other = fixed not in (None, data.image_size[0]) or (fixed is not None and data.image_size[0] != data.image_size[1])
    size = (data.channels, *((fixed, fixed) if fixed and other else data.image_size))
    if other and settings.size is None:
        say(f"{settings.name} takes images of {fixed} x {fixed} pixels alone: those of {data.image_size[0]} x "
            f"{data.image_size[1]} are resized. Its setting `size` builds it for others.")
    places, unmatched = (None, None) if own is None else _Match(finished, features, say).of(settings, own, data)
    statistics = _statistics(settings, source.statistics, data)
    network = _looking(module, source, settings.name, size, statistics, resize=bool(other), places=places)
    network.unmatched = unmatched
    _check_answer(network, data)
    return network


def _check_answer(network: Network, data: Data) -> None:
    """Refuse what gives no map where the task needs one."""
    shape, outputs = network.shape("logits"), data.task.outputs(len(data.classes))
    maps = len(shape) == 3 and (shape[0] == outputs or network.unmatched is not None)
    if data.task.name != "classification" and not maps:
        raise Mistake(f"{data.task.name} needs a network that answers with a map ({outputs}, h, w) for each image; "
                      f"{network.name} gives {shape}. Give a network of dense tasks: `limbeck list networks`.")


@dataclass(frozen=True)
class _Match:
    """How the classes of a network are brought to the data's; see `open_network`."""

    finished: bool
    features: bool
    say: Callable[[str], None]

    def of(self, settings: NetworkSettings, own: Sequence[Names], data: Data) -> _Places:
        """Which of its logits it answers with, None for all; and why they are none for the data, if so."""
        try:
            matched = match_classes(settings.name, own, data.classes, settings.classes)
        except Mistake as mistake:
            if not self.features:
                raise
            return None, str(mistake)
        if matched.note:
            self.say(matched.note)
        return matched.places, None


def untrained(name: str, size: int | None = None, *, classes: int = 10) -> Network:
    """An untrained network without data: to see what it is made of.

    Args:
        name: What a user calls it; a run's folder too.
        size: Side of its images in pixels; None is the one that it insists on, else 32, or 224 where that is too small.
        classes: Number of logits.
    """
    if is_run(name):
        about = description(Path(name))
        name, size, classes = about["name"], size or about["size"][1], len(about["classes"])
    source = origin_of(name, classes, size)
    statistics = source.statistics or STATISTICS["identity"]
    sides = [size or source.fixed_size or 32, *[224] * (size is None and source.fixed_size is None)]
    for side in sides[:-1]:
        with suppress(Mistake):
            return _looking(source.build(), source, name, (3, side, side), statistics)
    return _looking(source.build(), source, name, (3, sides[-1], sides[-1]), statistics)


def _looking(module: nn.Module, source: Origin, name: str, size: tuple[int, int, int], statistics: Statistics,
             **more: Any) -> Network:
    """A network that looks at images of this size.

    Raises:
        Mistake: If it cannot.
    """
    try:
        return Network(module, name=name, size=size, statistics=statistics, factory=source.build, **more)
    except RuntimeError as problem:
        raise Mistake(f"{name} cannot look at images of {size[1]} x {size[2]} pixels: {problem}. Set its `size` to "
                      f"what it can, or data.size for everyone.") from None


def describe(network: Network, classes: tuple[str, ...], task: Task) -> dict[str, Any]:
    """What a run's folder says of its network, so that it can be built again.

    Args:
        network: The network that ships.
        classes: Names of its classes, in order.
        task: What it answers.
    """
    return {"name": network.name, "task": task.name, "classes": list(classes), "size": list(network.size),
            "resize": network.resize, "mean": list(network.statistics.mean), "std": list(network.statistics.std),
            "fingerprint": network.fingerprint(), "parameters": sum(p.numel() for p in network.module.parameters())}


def _from_run(folder: Path, settings: NetworkSettings, data: Data, match: _Match) -> Network:
    about, places, unmatched = description(folder), None, None
    _check_task(folder, about, data)
    classes = tuple(about["classes"])
    if match.finished and classes:
        places, unmatched = match.of(settings, [(name,) for name in classes], data)
    else:
        _check_classes(folder, classes, data.classes)
    outputs = data.task.outputs(len(classes))
    factory = origin_of(about["name"], outputs, about["size"][1], data.channels).build
    module = factory()
    weights = Path(settings.weights) if settings.weights else folder / _WEIGHTS
    load_into(module, read_state(weights), str(weights))
    size, statistics = tuple(about["size"]), Statistics(tuple(about["mean"]), tuple(about["std"]))
    if data.task.name != "classification" and not about["resize"]:
        size = (data.channels, *data.image_size)  # a network of maps takes what it is given: crops differ
    resize = about["resize"] or size[1:] != tuple(data.image_size)
    network = Network(module, name=about["name"], size=size, statistics=_statistics(settings, statistics, data),
                      resize=resize, factory=factory, places=places)
    network.unmatched = unmatched
    return network


def _check_task(folder: Path, about: Mapping[str, Any], data: Data) -> None:
    own = about.get("task", "classification"), about["size"][0]
    if own != (data.task.name, data.channels):
        raise Mistake(f"{folder} answers {own[0]} of images of {own[1]} channels, and the data is for {data.task.name} "
                      f"of {data.channels}. Give a network trained on such data.")


def _check_classes(folder: Path, own: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """A network that goes on learning has the data's classes in the data's order, as its weights ship as they are."""
    if own == wanted:
        return
    if len(own) != len(wanted):
        raise Mistake(f"{folder} knows {len(own)} classes and the data has {len(wanted)}. Give a network trained on "
                      f"these classes, or the data with data.classes={len(own)}.")
    place = next(i for i, (a, b) in enumerate(zip(own, wanted, strict=True)) if a != b)
    raise Mistake(f"{folder} and the data disagree on the names or order of classes: class {place} is '{own[place]}' "
                  f"there and '{wanted[place]}' here. Give a network trained on these classes in this order.")


def _statistics(settings: NetworkSettings, own: Statistics | None, data: Data) -> Statistics:
    """Those asked for; readings of depth, a fourth channel, stay in metres where three are given."""
    found = _three(settings, own, data)
    further = data.channels - len(found.mean)
    return Statistics((*found.mean, *[0.0] * further), (*found.std, *[1.0] * further))


def _three(settings: NetworkSettings, own: Statistics | None, data: Data) -> Statistics:
    wish = settings.statistics
    if isinstance(wish, tuple):
        return Statistics(*wish)
    if wish is None and own is not None:
        return own
    if wish in (None, "data"):
        return Statistics(*data.statistics)
    if wish not in STATISTICS:
        raise Mistake(f"there are no input statistics '{wish}'; {nearest(str(wish), [*STATISTICS, 'data'])}")
    return STATISTICS[str(wish)]
