"""What networks call the classes that they know: runs' folders, and weights that come with names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.config import NetworkSettings
from limbeck.errors import Mistake
from limbeck.sources import huggingface
from limbeck.sources.naming import Names
from limbeck.sources.origin import DISTILLED, WITH_WEIGHTS

DESCRIPTION = "network.json"
"""The file of a finished run's folder that says what its network is."""


def is_run(name: str) -> bool:
    """Whether a network's name is the folder of a finished run."""
    return (Path(name) / DESCRIPTION).is_file()


def description(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its network.

    Raises:
        Mistake: If it cannot be read.
    """
    try:
        about: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    except ValueError:
        raise Mistake(f"{folder / DESCRIPTION} cannot be read as JSON. Train that network again.") from None
    return about


def known_classes(settings: NetworkSettings) -> Sequence[Names] | None:
    """What a network calls the classes that it knows, as far as it says: a run's folder, or weights of its source.

    Those who know ImageNet's 1,000 classes know them by their codes (`n01440764`), too.
    """
    if is_run(settings.name):
        return [(name,) for name in description(Path(settings.name))["classes"]]
    kind, _, name = settings.name.removeprefix(DISTILLED).partition(":")
    if settings.weights != "pretrained" or kind not in WITH_WEIGHTS:
        return None
    if kind == "hf":
        return huggingface.class_names(name)
    if kind == "torchvision":
        from torchvision import models

        names = [(str(one),) for one in models.get_model_weights(name)["DEFAULT"].meta["categories"]]
        return [(*own, *more) for own, more in zip(names, _imagenet(), strict=True)] if len(names) == 1000 else names
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or config.num_classes != 1000:
        return [(str(one),) for one in config.label_names] if config is not None and config.label_names else None
    return _imagenet()


def _imagenet() -> list[Names]:
    """ImageNet's classes: code, description, and each word of it."""
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-1k")
    return [(code, words, *words.split(", ")) for code, words in
            zip(known.label_names(), known.label_descriptions(), strict=True)]
