"""Networks by what a user calls them: a zoo name, `timm:`, `torchvision:`, `py:module:factory`, or a run's folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from limbeck import places
from limbeck.config import NetworkSettings
from limbeck.data import Data
from limbeck.errors import Mistake, nearest
from limbeck.known import DESCRIPTION, description, is_run, known_classes
from limbeck.members import STATISTICS, Network, Statistics
from limbeck.naming import BY_ORDER, Names, match_classes
from limbeck.networks import build, find, torchvision_scenes
from limbeck.networks.checkpoints import load_into, read_state
from limbeck.tasks import Task

_WEIGHTS = "student.safetensors"
_Places = tuple[Sequence[int] | None, str | None]
"""Which of a network's logits it answers with, None for all; and why they are none for the data, if so."""


@dataclass(frozen=True)
class _Origin:
    """How a source builds a network, and what it says of the images that the network expects."""

    build: Callable[[], nn.Module]
    pretrained: Callable[[], nn.Module] | None = None
    statistics: Statistics | None = None
    fixed_size: int | None = None


def check_network(settings: NetworkSettings) -> None:
    """Refuse what cannot be a network, before anything is read or built.

    Raises:
        Mistake: For an unknown name, a missing package, file or folder.
    """
    kind, _, name = settings.name.partition(":")
    if isinstance(settings.classes, str) and settings.classes != BY_ORDER and not Path(settings.classes).is_file():
        raise Mistake(f"classes of {settings.name} are a mapping, a YAML file of one, or {BY_ORDER}; there is no file "
                      f"'{settings.classes}'. Check the path.")
    if is_run(settings.name):
        return
    if kind in ("timm", "torchvision") and name:
        _known(kind, name)
    elif kind == "py":
        _factory(settings.name)
    elif kind == settings.name:
        if "/" in settings.name or settings.name.startswith("."):
            raise Mistake(f"a network is needed; {settings.name} is no folder of a finished run (it holds no "
                          f"{DESCRIPTION}). Give the folder that --run named, once its job is done.")
        find(settings.name)
    else:
        raise Mistake(f"a network is NAME, timm:NAME, torchvision:NAME, py:module:factory or a run's folder; got "
                      f"'{settings.name}'. `limbeck list networks` shows names.")
    if settings.weights not in (None, "pretrained") and not Path(str(settings.weights)).is_file():
        raise Mistake(f"weights for {settings.name} are needed; there is no file {settings.weights}. Check the path.")
    if settings.weights == "pretrained" and kind not in ("timm", "torchvision"):
        raise Mistake(f"{settings.name}@pretrained: only timm: and torchvision: networks come with weights of their "
                      f"own. Give a checkpoint's path behind the @.")


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
        say: Takes what was matched.

    Raises:
        Mistake: If weights, classes or names do not fit.
    """
    if is_run(settings.name):
        return _from_run(Path(settings.name), settings, data, _Match(finished, features, say))
    own = known_classes(settings) if finished else None
    origin = _origin(settings.name, data.task.outputs(len(own or data.classes)), data.channels)
    pretrained = settings.weights == "pretrained"
    module = origin.pretrained() if pretrained and origin.pretrained else origin.build()
    if settings.weights and not pretrained:
        load_into(module, read_state(Path(settings.weights)), settings.weights)
    fixed = settings.size or origin.fixed_size
    other = fixed not in (None, data.image_size[0]) or (fixed is not None and data.image_size[0] != data.image_size[1])
    size = (data.channels, *((fixed, fixed) if fixed and other else data.image_size))
    places, unmatched = (None, None) if own is None else _Match(finished, features, say).of(settings, own, data)
    network = Network(module, name=settings.name, size=size, statistics=_statistics(settings, origin.statistics, data),
                      resize=bool(other), factory=origin.build, places=places)
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


def untrained(name: str, *, classes: int) -> tuple[nn.Module, int | None]:
    """An untrained network by name, and the image size that it insists on, if any."""
    origin = _origin(name, classes)
    return origin.build(), origin.fixed_size


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
    factory = _origin(about["name"], data.task.outputs(len(classes)), data.channels).build
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


def _origin(name: str, outputs: int, channels: int = 3) -> _Origin:
    """How a network of so many outputs is built, for images of so many channels."""
    kind, _, rest = name.partition(":")
    further = {} if channels == 3 else {"channels": channels}
    if kind == "timm":
        return _timm(rest, outputs, channels)
    if kind == "torchvision":
        if further:
            raise Mistake(f"torchvision: networks look at 3 channels; the images have {channels}. Give a network of "
                          f"timm:, of the zoo's dense ones, or your own, or set data.sparse_depth=0.")
        return _torchvision(rest, outputs)
    if kind == "py":
        factory = _factory(name)
        wishes = {"num_classes": outputs, **further}
        taken = inspect.signature(factory).parameters
        if further and "channels" not in taken:
            raise Mistake(f"{name} is to look at {channels} channels; its function takes no `channels`. Give it this "
                          f"argument, or set data.sparse_depth=0.")
        return _Origin(partial(factory, **{key: value for key, value in wishes.items() if key in taken}))
    return _Origin(partial(build, name, outputs, channels))


def _timm(name: str, classes: int, channels: int) -> _Origin:
    import timm

    _known("timm", name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    statistics = Statistics(tuple(config.mean), tuple(config.std)) if config is not None else STATISTICS["imagenet"]
    fixed = config.input_size[-1] if config is not None and config.fixed_input_size else None
    create = partial(timm.create_model, name, num_classes=classes, in_chans=channels)
    return _Origin(create, partial(create, pretrained=True), statistics, fixed)


def _torchvision(name: str, classes: int) -> _Origin:
    from torchvision import models

    _known("torchvision", name)
    if name in torchvision_scenes.names():
        build_scene = partial(torchvision_scenes.scene_network, name)
        return _Origin(partial(build_scene, classes), build_scene, STATISTICS["imagenet"])

    def pretrained() -> nn.Module:
        module: nn.Module = models.get_model(name, weights="DEFAULT")
        return module

    fixed = 224 if name.startswith(("vit_", "maxvit")) else None
    return _Origin(partial(models.get_model, name, weights=None, num_classes=classes), pretrained,
                   STATISTICS["imagenet"], fixed)


def _known(kind: str, name: str) -> None:
    if kind == "timm":
        import timm

        plain = name.partition(".")[0]
        names = timm.list_models()
    else:
        from torchvision import models

        plain, names = name, models.list_models(models) + torchvision_scenes.names()
    if plain not in names:
        raise Mistake(f"{kind} has no network '{name}'; {nearest(plain, names)}")


def _factory(text: str) -> Callable[..., nn.Module]:
    place = text.partition(":")[2]
    if not all(place.rpartition(":")[::2]):
        raise Mistake(f"one's own network is py:module:factory; got '{text}'. For example py:mynets.small:tiny_net")
    return places.find(place)
