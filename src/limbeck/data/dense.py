"""From settings to a data set of images and maps: which labels count, at what size, held or streamed, how augmented."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from limbeck.config import DataSettings
from limbeck.data.dataset import Data
from limbeck.data.decode import LOOKED_AT, THREADS, Encoded, Unreadable, some_shapes
from limbeck.data.images import Split
from limbeck.data.joint import Joint
from limbeck.data.reading import MILLIMETRE, Distances, Labels, depth_map, far, label_map, label_table
from limbeck.data.scenes import Look, Pairs, Scenes, Size, StreamedScenes
from limbeck.data.sources import Part, Source
from limbeck.errors import Mistake
from limbeck.tasks.depth import Depth
from limbeck.tasks.segmentation import VOID, Segmentation

CHUNK = 64  # pairs that are decoded at once
KINDS = ("auto", "crop", "crop-flip", "none")


class _Custom(NamedTuple):
    """Scale, degrees of a turn and jitter where nothing else is said."""

    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    jitter: float = 0.0


CUSTOMS = {"segmentation": _Custom((0.7, 2.1)),     # IFVD's code, in steps of 0.1 there
           "depth": _Custom((1.0, 1.5), 5.0, 0.4)}  # sparse-to-dense's


def open_dense(source: Source, train: Part, test: Part, notes: tuple[str, ...], settings: DataSettings,
               budget: int) -> Data:
    """A data set of images and maps, decoded and resized as the settings say.

    Args:
        source: What it is a part of.
        train: What is trained on.
        test: What is scored.
        notes: What has been said of it.
        settings: As the user gave them.
        budget: Bytes of decoded images and maps that are held without being asked.

    Raises:
        Mistake: If its maps cannot be used, or the settings do not fit it.
    """
    _check(source, settings)
    both = [_encoded(train, source), _encoded(test, source)]
    segments = source.task == "segmentation"
    reading, classes = _labels(source, both[0][1], settings) if segments else (_distances(both[0][1], settings), ())
    size = _size([images for images, _ in both], settings)
    pairs = [Pairs(images, maps, reading, size) for images, maps in both]
    wanted = sum(map(len, pairs)) * size[0] * size[1] * (3 + reading.width)
    held = wanted <= budget if settings.in_memory is None else settings.in_memory
    look = Look(reading, settings.sparse_depth)
    splits = [_split(one, look, held=held, skip=settings.skip_unreadable) for one in pairs]
    return Data(source.name, classes, splits[0], splits[1], _augmentation(source, settings),
                sum(map(len, pairs)) - sum(map(len, splits)), notes,
                Segmentation(len(classes), names=classes) if segments else Depth(_farthest(splits[0])))


def _check(source: Source, settings: DataSettings) -> None:
    """Refuse settings that are for another task, all at once."""
    strange = ("depth_unit", "sparse_depth") if source.task == "segmentation" else ("void", "class_names")
    names = ("classes", "per_class", "mixup", "cutmix", *strange)
    given = [name for name in names if getattr(settings, name) != DataSettings.model_fields[name].default]
    wrong = [f"data.{name} does not belong to {source.task}. Leave it out" for name in given]
    if settings.augment not in KINDS:
        wrong.append(f"data.augment of {source.task} is one of {list(KINDS)}; got {settings.augment}. Choose one of "
                     "them")
    if settings.scale is not None and settings.scale[0] > settings.scale[1]:
        wrong.append(f"data.scale is the least and the greatest factor; got {list(settings.scale)}. Exchange them")
    if wrong:
        raise Mistake("\n".join(wrong))


def _encoded(part: Part, source: Source) -> tuple[Encoded, Encoded]:
    assert not isinstance(part.images, torch.Tensor)
    assert part.maps is not None
    if not len(part.images):
        raise Mistake(f"there must be images to train on and to score; {source.name} has none. Put images there")
    return part.images, part.maps


# --- what maps hold


def _labels(source: Source, maps: Encoded, settings: DataSettings) -> tuple[Labels, tuple[str, ...]]:
    """How label maps are read, and the names of the classes that count."""
    names = settings.class_names or source.classes or tuple(map(str, range(_highest(maps, settings) + 1)))
    classes, table = label_table(names, settings.void, None if settings.class_names else source.order)
    return Labels(table), classes


def _highest(maps: Encoded, settings: DataSettings) -> int:
    """The highest number of a class in any label map."""

    def one(row: int) -> int:
        try:
            numbers = label_map(maps.read([row])[0], maps.name(row))
        except Unreadable:
            if settings.skip_unreadable:
                return -1
            raise
        return int(numbers.max(initial=0, where=(numbers != VOID) & (numbers != settings.void)))

    with ThreadPoolExecutor(THREADS) as threads:
        return max(threads.map(one, range(len(maps))))


def _distances(maps: Encoded, settings: DataSettings) -> Distances:
    """How depth maps are read: as the first that can be shows."""
    for row in range(len(maps)):
        try:
            floats = depth_map(maps.read([row])[0], maps.name(row)).dtype.kind == "f"
        except Unreadable:
            if settings.skip_unreadable and row + 1 < len(maps):
                continue
            raise
        break
    return Distances(settings.depth_unit or (1.0 if floats else MILLIMETRE), floats)


def _farthest(split: Split) -> float:
    """How far the depth of a few images reaches."""
    depths = split.store.maps(split.index[sorted({i * len(split) // LOOKED_AT for i in range(LOOKED_AT)})])
    assert depths is not None
    return far(depths)


# --- sizes, memory and augmentation


def _size(images: Sequence[Encoded], settings: DataSettings) -> Size:
    """Height and width that all images and maps are brought to."""
    if isinstance(settings.size, tuple):
        return settings.size
    shapes = [shape for some in images for shape in some_shapes(some, skip=settings.skip_unreadable)]
    if len(set(shapes)) > 1:
        raise Mistake(f"images of a dense task need one size; those of {settings.source} have {min(shapes)} to "
                      f"{max(shapes)} (width, height). Give data.size as [height, width] to bring all of them to")
    width, height = shapes[0]
    factor = 1.0 if settings.size is None else settings.size / min(height, width)
    return round(factor * height), round(factor * width)


def _augmentation(source: Source, settings: DataSettings) -> Joint:
    custom = CUSTOMS[source.task] if settings.augment == "auto" else _Custom()
    return Joint((settings.crop, settings.crop) if isinstance(settings.crop, int) else settings.crop,
                 settings.scale or custom.scale, custom.rotate if settings.rotate is None else settings.rotate,
                 settings.augment in ("auto", "crop-flip"),
                 custom.jitter if settings.jitter is None else settings.jitter, settings.augment != "none")


def _split(pairs: Pairs, look: Look, *, held: bool, skip: bool) -> Split:
    """Pairs decoded, or ready to be; without what cannot be."""
    if not held and not skip:
        return Split.whole(StreamedScenes(pairs, look), None)
    pixels = torch.empty(len(pairs) if held else 0, 3, *pairs.size, dtype=torch.uint8)
    stored, kept = torch.empty(0), list[int]()
    for start in range(0, len(pairs), CHUNK):
        images, maps, rows = pairs.read(range(start, min(start + CHUNK, len(pairs))), threads=THREADS, skip=skip)
        if held and rows:
            stored = stored if len(stored) else torch.empty(len(pairs), *pairs.size, dtype=maps.dtype)
            pixels[len(kept):len(kept) + len(rows)], stored[len(kept):len(kept) + len(rows)] = images, maps
        kept += rows
    if not kept:
        raise Mistake(f"at least one image and its map must be readable; none of {len(pairs)} is, as "
                      f"{pairs.images.name(0)}. Check that they are images")
    if not held:
        return Split.whole(StreamedScenes(pairs.select(kept), look), None)
    whole = len(kept) == len(pairs)
    return Split.whole(Scenes(pixels if whole else pixels[:len(kept)].clone(),
                              stored if whole else stored[:len(kept)].clone(), look), None)
