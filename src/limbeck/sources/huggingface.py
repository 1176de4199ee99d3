"""Image classifiers of the Hugging Face hub, or of a local folder in its layout, through `transformers`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.errors import Mistake
from limbeck.members import Statistics
from limbeck.sources.naming import Names
from limbeck.sources.origin import Origin, call

_PACKAGE = "transformers"
_CONFIGURATION, _PROCESSOR = "config.json", "preprocessor_config.json"


def check(name: str) -> None:
    """Refuse what cannot be opened, without asking the hub.

    Raises:
        Mistake: If the package is missing, or the name is that of a folder which holds no classifier.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise Mistake(f"hf:{name} needs the package {_PACKAGE}, which is not installed. Install it with: pip install "
                      f"'limbeck[hf]'")
    folder = Path(name)
    if folder.is_dir() and not (folder / _CONFIGURATION).is_file():
        raise Mistake(f"hf:{name} is a folder without a {_CONFIGURATION}. Give one that `save_pretrained` wrote, or a "
                      f"repository of the hub.")
    if not folder.is_dir() and (name.startswith((".", "/")) or name.count("/") > 1):
        raise Mistake(f"hf:{name} is neither a folder nor a repository (OWNER/NAME). Check the path.")


def origin_of(name: str, classes: int, size: int | None = None) -> Origin:
    """Where a classifier comes from; the size and statistics of its images are those of its image processor.

    Args:
        name: Repository of the hub, or a folder.
        classes: Number of logits; a head for others than its own is drawn anew.
        size: Side of its images in pixels; None for its own. For another than its own there are no weights.

    Raises:
        Mistake: If it cannot be found, or is no image classifier.
    """
    configuration, processor = _configuration(name), _processor(name)
    own = _own_size(configuration, processor)
    kind = _classifier(name, configuration)
    configuration.num_labels = classes
    other = bool(size) and hasattr(configuration, "image_size") and size != own
    if other:
        configuration.image_size = size
    mean, std = processor.get("image_mean"), processor.get("image_std")
    pretrained = partial(_pretrained, kind, name, classes)
    line = call("transformers.AutoConfig.from_pretrained", name, num_labels=classes,
                **({"image_size": size} if other else {}))
    return Origin(partial(kind._from_config, configuration), None if other else pretrained,
                  Statistics(tuple(mean), tuple(std)) if mean and std else None, size if other else own,
                  f"transformers.{kind.__name__}({line})")


def class_names(name: str) -> Sequence[Names] | None:
    """What its classes are called, each by all of its names (`tench, Tinca tinca`); None if they only have numbers."""
    called = _configuration(name).id2label
    names = [str(called[place]) for place in sorted(called)]
    if names == [f"LABEL_{place}" for place in range(len(names))]:
        return None
    return [tuple(dict.fromkeys((one, *one.split(", ")))) for one in names]


def _pretrained(kind: Any, name: str, classes: int) -> nn.Module:
    with _quiet():
        module: nn.Module = kind.from_pretrained(name, num_labels=classes, ignore_mismatched_sizes=True)
    return module.float()


def _configuration(name: str) -> Any:
    from transformers import AutoConfig

    try:
        with _quiet():
            return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as problem:
        raise Mistake(f"hf:{name} cannot be opened: {' '.join(str(problem).split())} Give a repository of the hub, or "
                      f"a folder that holds its files.") from None


def _processor(name: str) -> Mapping[str, Any]:
    """What its image processor's file says; nothing where there is none."""
    from transformers.utils.hub import cached_file

    file = Path(name) / _PROCESSOR
    if not Path(name).is_dir():
        found = cached_file(name, _PROCESSOR, _raise_exceptions_for_missing_entries=False)
        file = Path(found) if found else file
    about: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return about


def _own_size(configuration: Any, processor: Mapping[str, Any]) -> int | None:
    """The side of the images that it was made for: as it is built, else as its processor cuts them."""
    for size in (getattr(configuration, "image_size", None), processor.get("crop_size"), processor.get("size")):
        if isinstance(size, Mapping):
            size = size.get("height", size.get("shortest_edge"))
        if isinstance(size, Sequence) and size:
            size = size[0]
        if isinstance(size, int):
            return size
    return None


def _classifier(name: str, configuration: Any) -> Any:
    """The class that its configuration names, or the first for its kind."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as KNOWN

    if type(configuration) not in KNOWN:
        raise Mistake(f"an image classifier is needed; hf:{name} is of type {configuration.model_type}, for which "
                      f"there is none. Give one of the hub's image-classification networks.")
    found = KNOWN[type(configuration)]
    several: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
    wanted = getattr(configuration, "architectures", None) or []
    return next((kind for kind in several if kind.__name__ in wanted), several[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and reports; everything is as it was afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
