"""Image data sets of the Hugging Face hub, and local folders of parquet files, through the library `datasets`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.config import DataSettings
from limbeck.data.kept import files_mark, hashed
from limbeck.data.sources.source import SCORED, Part, Source, TaskName, choose_scored, named_classes
from limbeck.errors import Mistake, nearest

TRAINED = ("train", "training")
LABELS = ("label", "labels", "target", "class")
MAPS: dict[str, TaskName] = {
    **dict.fromkeys(("label", "labels", "mask", "masks", "annotation", "segmentation", "semantic_segmentation",
                     "segmentation_mask", "label_map"), "segmentation"),
    **dict.fromkeys(("depth", "depths", "depth_map"), "depth")}
"""Columns of maps, and their tasks."""


@dataclass(frozen=True)
class Column:
    """The image column of one split.

    Attributes:
        table: A `datasets.Dataset` whose images are left undecoded.
        column: The column's name.
        split: The split's, for messages.
        rows: Which rows of the table, in one array, so that workers share it.
    """

    table: Any
    column: str
    split: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Sequence[int]) -> list[Path | bytes]:
        """Contents of files, or paths of those that the data set only refers to."""
        found = self.table[self.rows[list(rows)].tolist()][self.column]
        return [b"" if image is None else Path(image["path"]) if image["bytes"] is None else image["bytes"]
                for image in found]

    def name(self, row: int) -> str:
        """Its row."""
        return f"row {self.rows[row]} of split '{self.split}'"

    def select(self, rows: Sequence[int]) -> Column:
        """Only these rows."""
        return Column(self.table, self.column, self.split, self.rows[list(rows)])

    def mark(self) -> str | None:
        """Of the library's own files, which it writes anew when the data set changes; None where it has none."""
        files = [file["filename"] for file in self.table.cache_files]
        rows = hashlib.blake2b(self.rows.tobytes(), digest_size=12).hexdigest()
        return hashed((files_mark(files), self.column, self.split, rows)) if files else None


def open_hub(place: str, settings: DataSettings) -> Source:
    """A data set by hub id or local folder; its columns are found by what they hold.

    Args:
        place: A hub id such as `cifar10` or `owner/name`, or a folder.
        settings: Which configuration and columns, where a data set has several.

    Raises:
        Mistake: If it cannot be had, has no training split, or its columns of images and classes are not plain to see.
    """
    tables = _load(place, settings.subset)
    train = next((name for name in TRAINED if name in tables), None)
    if train is None and len(tables) > 1:
        raise Mistake(f"a data set needs a split {' or '.join(TRAINED)}; {place} has {sorted(tables)}. "
                      "Choose another configuration with subset, if it has one")
    tables = {"train" if name == train or len(tables) == 1 else name: table for name, table in tables.items()}
    tables = {name: table for name, table in tables.items() if name in ("train", *SCORED)}
    if (maps := _map_columns(tables["train"].features, settings)) is not None:
        return _dense(place, tables, *maps)
    image, label = _columns(tables["train"].features, settings)
    labels = {name: _labels(table, label, name) for name, table in tables.items()}
    if labels["train"] and len(set(labels["train"])) == len(labels["train"]) > 1:
        raise Mistake(f"classes need several images; in column '{label}' each of {len(labels['train'])} training "
                      "images has its own value. Set label_column to the column of classes")
    test = choose_scored({name: found is not None for name, found in labels.items()})
    used = ("train", test) if test else ("train",)
    given = getattr(tables["train"].features.get(label), "names", None)  # a ClassLabel has them
    values = next((found for name in used if (found := labels[name])), [])
    known = range(len(given)) if given else sorted(set(values))
    parts = {name: Part(_column(tables[name], image, name), _targets(labels[name], known, name)) for name in used}
    classes = tuple(given or map(str, known)) if any(part.targets is not None for part in parts.values()) else ()
    return Source(f"hf:{place}", classes, parts["train"], parts[test] if test else None, test or "")


def _load(place: str, subset: str | None) -> Mapping[str, Any]:
    """Its splits by name."""
    import datasets

    folder = Path(place).expanduser()
    try:
        with _bars_on_terminals():
            found = datasets.load_dataset(str(folder) if folder.is_dir() else place, subset)
    except Exception as error:  # of the network, of the hub, of files: each library underneath has its own
        raise Mistake(f"hf: needs the id of an image data set on the hub, or a folder that exists; '{place}' could not "
                      f"be opened ({type(error).__name__}: {error}). Check the name and the network, and choose a "
                      "configuration with subset where there are several") from error
    return dict(found)


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """The library's progress bars where someone looks; they are as they were afterwards."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _columns(features: Mapping[str, Any], settings: DataSettings) -> tuple[str, str | None]:
    """Names of the image column and of the label column, if there is one."""
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    image = _chosen("image_column", settings.image_column, images, images)
    named = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    whole = [name for name, kind in features.items() if str(getattr(kind, "dtype", "")).lstrip("u").startswith("int")]
    words = [name for name, kind in features.items() if getattr(kind, "dtype", "") == "string"]
    found = named or [name for name in whole if name in LABELS] or whole
    if image is None:
        raise Mistake(f"a data set needs a column of type Image; this one has {dict(features)}. Choose another data "
                      "set, or cast the column")
    return image, _chosen("label_column", settings.label_column, found, [*whole, *words])


def _map_columns(features: Mapping[str, Any], settings: DataSettings) -> tuple[str, str, TaskName] | None:
    """Names of the columns of images and of maps, and their task; None where images have classes or nothing."""
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if settings.task == "classification":
        return None
    if settings.task == "auto" and (len(images) < 2 or settings.label_column not in (None, *images)):
        return None
    named = {name: MAPS[name] for name in images if settings.task in ("auto", MAPS.get(name))
             and name in MAPS and name != settings.image_column}
    column = _chosen("label_column", settings.label_column, list(named), images)
    if column is None and settings.task == "auto":
        return None
    task = settings.task if settings.task != "auto" else MAPS.get(column or "")
    if column is None or task is None:
        raise Mistake(f"a data set of maps needs a column of type Image with them, and a task; this one has the image "
                      f"columns {images}. Set label_column to that of the maps, and task to segmentation or depth")
    image = _chosen("image_column", settings.image_column, [n for n in images if n != column and n not in MAPS], images)
    if image is None or image == column:
        raise Mistake(f"a data set of maps needs a column of images beside '{column}'; this one has {images}. Set "
                      "image_column to it")
    return image, column, task


def _dense(place: str, tables: Mapping[str, Any], image: str, column: str, task: TaskName) -> Source:
    """A data set of images and maps."""
    test = choose_scored({name: column in table.column_names for name, table in tables.items()})
    parts = {name: Part(_column(tables[name], image, name), None, _column(tables[name], column, name))
             for name in ("train", *([test] if test else []))}
    classes = named_classes(Path(place).expanduser()) if task == "segmentation" else ()
    return Source(f"hf:{place}", classes, parts["train"], parts[test] if test else None, test or "", task=task)


def _chosen(option: str, wanted: str | None, found: Sequence[str], possible: Sequence[str]) -> str | None:
    """The column asked for, or the only one found."""
    if wanted is not None:
        if wanted not in possible:
            raise Mistake(f"{option} must name a fitting column; there is no '{wanted}', {nearest(wanted, possible)}")
        return wanted
    if len(found) > 1:
        raise Mistake(f"one column must be chosen where several fit; found {list(found)}. Set {option} to one of them")
    return found[0] if found else None


def _labels(table: Any, label: str | None, split: str) -> list[Any] | None:
    """The label of every row; None where the split has none, which some say by -1."""
    if label is None or label not in table.column_names:
        return None
    values = table.select_columns([label])[:][label]
    missing = sum(value is None or (isinstance(value, int) and value < 0) for value in values)
    if missing == len(values):
        return None
    if missing:
        raise Mistake(f"a split needs a label for every image or for none; {missing} of {len(values)} images of split "
                      f"'{split}' have none in column '{label}'. Filter them out, or choose another label_column")
    return values


def _targets(labels: Sequence[Any] | None, known: Sequence[Any], split: str) -> torch.Tensor | None:
    if labels is None:
        return None
    place = {value: c for c, value in enumerate(known)}
    other = sorted({value for value in labels if value not in place})
    if other:
        raise Mistake(f"classes of {split} must be among those of train; there are also {other[:6]}. "
                      "Mend the labels, or choose another label_column")
    return torch.tensor([place[value] for value in labels])


def _column(table: Any, image: str, split: str) -> Column:
    import datasets

    return Column(table.cast_column(image, datasets.Image(decode=False)), image, split, np.arange(len(table)))
