"""Who builds networks: the zoo, timm, torchvision, Hugging Face, or anyone's own function.

`distilled:` before the name of a vision transformer of timm gives it a distillation token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from torch import nn

from limbeck import places
from limbeck.errors import Mistake, nearest
from limbeck.members import STATISTICS, Statistics
from limbeck.networks import build, find, torchvision_scenes
from limbeck.sources import huggingface
from limbeck.sources.origin import DISTILLED, Origin, call


def check(name: str) -> None:
    """Refuse a name that no source knows, before anything is built.

    Raises:
        Mistake: For an unknown name, or a missing package or folder.
    """
    kind, _, rest = name.partition(":")
    if name.startswith(DISTILLED):
        check(rest)
    elif kind in ("timm", "torchvision") and rest:
        _known(kind, rest)
    elif kind == "hf" and rest:
        huggingface.check(rest)
    elif kind == "py":
        _factory(name)
    elif kind == name:
        find(name)
    else:
        raise Mistake(f"a network is NAME, timm:NAME, torchvision:NAME, hf:REPO, hf:FOLDER, py:module:factory or a "
                      f"run's folder; got '{name}'. `limbeck list networks` shows names.")


def origin_of(name: str, classes: int, size: int | None = None, channels: int = 3) -> Origin:
    """Where a network comes from.

    Args:
        name: What a user calls it.
        classes: Number of logits.
        size: Side of its images in pixels: one that takes images of one size alone is built for this one. None for its
            own.
        channels: Of its images: 4 where sparse readings of depth are one.

    Raises:
        Mistake: If there is no such network, or it cannot be built for images of this size or of so many channels.
    """
    kind, _, rest = name.partition(":")
    if kind in ("torchvision", "hf") and channels != 3:
        raise Mistake(f"{kind}: networks look at 3 channels; the images have {channels}. Give a network of timm:, of "
                      f"the zoo's dense ones, or your own, or set data.sparse_depth=0.")
    if name.startswith(DISTILLED):
        return _distilled(rest, classes, size, channels)
    if kind == "timm":
        return _timm(rest, classes, size, channels)
    if kind == "torchvision":
        return _torchvision(rest, classes, size)
    if kind == "hf":
        return huggingface.origin_of(rest, classes, size)
    if kind == "py":
        return _own(name, {"num_classes": classes, **({} if channels == 3 else {"channels": channels})})
    further = [] if channels == 3 else [channels]
    return Origin(partial(build, name, classes, channels), line=call("limbeck.networks.build", name, classes, *further))


def _own(name: str, wishes: Mapping[str, int]) -> Origin:
    """Anyone's function, called with what it takes of these."""
    factory = _factory(name)
    taken = inspect.signature(factory).parameters
    if "channels" in wishes and "channels" not in taken:
        raise Mistake(f"{name} is to look at {wishes['channels']} channels; its function takes no `channels`. Give it "
                      f"this argument, or set data.sparse_depth=0.")
    used = {key: value for key, value in wishes.items() if key in taken}
    place = name.partition(":")[2].replace(":", ".")
    return Origin(partial(factory, **used), line=None if place.partition(".py.")[1] else call(place, **used))


def _distilled(name: str, classes: int, size: int | None, channels: int) -> Origin:
    from limbeck.networks.distilled import Distilled

    plain = origin_of(name, classes, size, channels)
    trained = plain.pretrained
    return replace(plain, build=lambda: Distilled(plain.build()),
                   pretrained=None if trained is None else lambda: Distilled(trained()),
                   line=f"limbeck.networks.distilled.Distilled({plain.line})")


def _timm(name: str, classes: int, size: int | None, channels: int) -> Origin:
    import timm

    _known("timm", name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    statistics = Statistics(tuple(config.mean), tuple(config.std)) if config is not None else STATISTICS["imagenet"]
    fixed = config.input_size[-1] if config is not None and config.fixed_input_size else None
    sized = {"img_size": size} if fixed and size and size != fixed else {}
    create = partial(timm.create_model, name, num_classes=classes, in_chans=channels)
    make = partial(_sized, create, f"timm:{name}", sized)
    further = {} if channels == 3 else {"in_chans": channels}
    line = call("timm.create_model", name, num_classes=classes, **further, **sized)
    return Origin(make, partial(make, pretrained=True), statistics, size if sized else fixed, line)


def _torchvision(name: str, classes: int, size: int | None) -> Origin:
    from torchvision import models

    _known("torchvision", name)
    if name in torchvision_scenes.names():
        build_scene = partial(torchvision_scenes.scene_network, name)
        line = call("torchvision.models.get_model", name, **torchvision_scenes.untrained(name, classes))
        return Origin(partial(build_scene, classes), build_scene, STATISTICS["imagenet"], line=line)

    def pretrained() -> nn.Module:
        module: nn.Module = models.get_model(name, weights="DEFAULT")
        return module if classes == 1000 else _with_own_head(module, models.get_model(name, num_classes=classes))

    key = "image_size" if name.startswith("vit_") else "input_size" if name.startswith("maxvit") else None
    fixed = 224 if key else None
    sized = {key: (size, size) if key == "input_size" else size} if key and size and size != fixed else {}
    make = partial(_sized, partial(models.get_model, name, weights=None, num_classes=classes), f"torchvision:{name}",
                   sized)
    line = call("torchvision.models.get_model", name, weights=None, num_classes=classes, **sized)
    return Origin(make, None if sized else pretrained, STATISTICS["imagenet"], size if sized else fixed, line)


def _with_own_head(trained: nn.Module, module: nn.Module) -> nn.Module:
    """The second network with all weights of the first that fit it: all but the head's."""
    own = module.state_dict()
    fitting = {key: value for key, value in trained.state_dict().items() if value.shape == own[key].shape}
    module.load_state_dict({**own, **fitting})
    return module


def _sized(make: Callable[..., nn.Module], name: str, sized: Mapping[str, object], **more: object) -> nn.Module:
    """Build a network for images of one size.

    Raises:
        Mistake: If it cannot be.
    """
    try:
        return make(**sized, **more)
    except Exception as problem:
        if not sized:
            raise
        raise Mistake(f"{name} takes images of one size alone, and cannot be built for {next(iter(sized.values()))} "
                      f"pixels: {problem}. Choose another `size` for it, or leave it out: its images are then "
                      f"resized.") from None


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
