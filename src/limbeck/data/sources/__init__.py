"""Where images come from: one option names it."""

from __future__ import annotations

from pathlib import Path

from limbeck.config import DataSettings
from limbeck.data.sources.cifar import open_cifar
from limbeck.data.sources.cityscapes import is_cityscapes, open_cityscapes
from limbeck.data.sources.digits import open_digits
from limbeck.data.sources.folder import open_folder
from limbeck.data.sources.hub import open_hub
from limbeck.data.sources.packed import open_packed
from limbeck.data.sources.pairs import kinds_of_maps, open_pairs
from limbeck.data.sources.source import Part, Source
from limbeck.errors import Mistake, nearest

__all__ = ["SOURCES", "Part", "Source", "check_source", "open_source"]

SOURCES = {
    "digits": "1,797 handwritten digits of 8x8 pixels, built in",
    "FOLDER": "images by class: FOLDER/train/CLASS/*, FOLDER/test/CLASS/*, or only FOLDER/CLASS/*; FOLDER/* "
              "without classes; images and maps: FOLDER/images/* and FOLDER/labels/* or FOLDER/depth/*, with train, "
              "val or test below or above them; Cityscapes; or *.parquet",
    "hf:NAME": "a data set of the Hugging Face hub, or a local folder of parquet files: images with classes, label "
               "maps or depth, or alone",
    "cifar10:FOLDER": "CIFAR-10 as published for Python",
    "cifar100:FOLDER": "CIFAR-100 as published for Python",
    "packed:FOLDER": "images of one size in a few files, as benchmarks/pack.py writes them",
}
"""What `source` may be, and what each is."""


def check_source(source: str) -> None:
    """Refuse what names no data set, before anything is read.

    Raises:
        Mistake: If it is neither a known kind nor a folder that exists.
    """
    kind, colon, place = source.partition(":")
    known = source == "digits" or (place and kind in ("hf", "cifar10", "cifar100", "packed"))
    if not known and not Path(source).expanduser().is_dir():
        raise Mistake(f"data needs a source that is known, or a folder that exists; got '{source}', "
                      f"{nearest(kind + colon, SOURCES)}. Put what you have in the place of FOLDER or NAME")


def open_source(settings: DataSettings) -> Source:
    """The data set that `settings.source` names, its images still as they are stored.

    Raises:
        Mistake: If there is no such source; before anything is read.
    """
    check_source(settings.source)
    kind, _, place = settings.source.partition(":")
    if settings.source == "digits":
        return open_digits()
    if kind == "hf" and place:
        return open_hub(place, settings)
    if kind in ("cifar10", "cifar100") and place:
        return open_cifar(kind, place)
    if kind == "packed" and place:
        return open_packed(place)
    folder = Path(settings.source).expanduser()
    parquet = any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet"))
    return open_hub(str(folder), settings) if parquet else _open_folder(folder, settings.task)


def _open_folder(folder: Path, task: str) -> Source:
    """Images by class, or images and maps, as the folder shows or the task demands."""
    if task == "classification":
        return open_folder(folder)
    if is_cityscapes(folder) and task != "depth":
        return open_cityscapes(folder)
    kinds = kinds_of_maps(folder)
    wanted = [kind for kind in kinds if task in ("auto", kind)]
    if len(wanted) > 1:
        raise Mistake(f"one task must be chosen where a folder has maps for several; {folder} has {wanted}. Set "
                      "data.task to one of them")
    if not wanted and task != "auto":
        raise Mistake(f"{task} needs a folder of images and one of maps; {folder} has maps for {kinds or 'no task'}. "
                      "Name them images and labels, or images and depth")
    return open_pairs(folder, wanted[0]) if wanted else open_folder(folder)
