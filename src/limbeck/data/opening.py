"""From settings to a data set: what is kept of a source, whether it is held in memory, how it is augmented."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.config import DataSettings
from limbeck.data.augment import Augmentation
from limbeck.data.dataset import Data
from limbeck.data.decode import Encoded, readable, some_shapes
from limbeck.data.dense import open_dense
from limbeck.data.images import Images, Split, resize, stratified
from limbeck.data.kept import decoded
from limbeck.data.randaugment import RandAugment
from limbeck.data.sources import Part, Source, open_source
from limbeck.data.streaming import MARGIN, Streamed
from limbeck.errors import Mistake

BUDGET = 4 * 2**30   # bytes of decoded images that are held without being asked
LARGE = 96           # pixels a side above which resized crops are the custom
STREAMED_SIZE = 224  # pixels a side that photographs of unequal sizes are brought to
TEST_PART = 0.2      # of each class, cut off where there is nothing to score


def open_data(settings: DataSettings) -> Data:
    """The data set that the settings name, chosen, decoded and resized as they say.

    Where a source has nothing to score, a fixed fifth of each class is cut off before any class or image is left out;
    so small choices are trained on a part of the full training set, and scored on a part of the full test set.

    Raises:
        Mistake: If there is no such source, what it holds cannot be used, or the settings do not fit it.
    """
    source = open_source(settings)
    if settings.task not in ("auto", source.task):
        raise Mistake(f"data.task is {settings.task}, and {source.name} is made for {source.task}. Leave data.task "
                      "out, or give other data")
    train, test, notes = _scored(source)
    if source.task != "classification":
        return open_dense(source, train, test, notes, settings, BUDGET)
    _check(settings)
    train = _choose(train, source, settings.classes, settings.per_class)
    test = _choose(test, source, settings.classes, None)
    plan = _plan([train, test], settings)
    augmentation = _augmentation(plan.side, source, settings)
    share = MARGIN if augmentation.kind == "resized-crop" else 1.0
    splits = [_split(part, plan, share, skip=settings.skip_unreadable, keep=settings.keep_decoded)
              for part in (train, test)]
    if splits[0].store.image_size != splits[1].store.image_size:
        raise Mistake(f"training and test images need one size; {source.name} has {splits[0].store.image_size} and "
                      f"{splits[1].store.image_size} (height, width). Give the size to bring all of them to")
    skipped = len(train.images) + len(test.images) - sum(map(len, splits))
    return Data(source.name, source.classes[:settings.classes], splits[0], splits[1], augmentation, skipped, notes)


_DENSE = ("crop", "scale", "rotate", "jitter", "void", "class_names", "depth_unit", "sparse_depth")


def _check(settings: DataSettings) -> None:
    """Refuse settings that are for dense tasks."""
    strange = [f"data.{name}" for name in _DENSE
               if getattr(settings, name) != DataSettings.model_fields[name].default]
    if isinstance(settings.size, tuple):
        strange.append("data.size of two numbers")
    if strange:
        raise Mistake(f"images with one class each take no {', '.join(strange)}; these are for segmentation and depth. "
                      f"Leave them out, or give data with maps")


def _scored(source: Source) -> tuple[Part, Part, tuple[str, ...]]:
    """Training part, the part that is scored, and what has to be said of it."""
    if source.test is not None:
        said = f"{source.name} has no labelled test split: its split '{source.scored}' is scored"
        return source.train, source.test, () if source.scored == "test" else (said,)
    cut = stratified(source.train.targets, len(source.train.images), TEST_PART, seed=0)
    train, test = source.train.select((~cut).nonzero()[:, 0]), source.train.select(cut.nonzero()[:, 0])
    fifth = "fifth" if source.train.targets is None else "fifth of each class"
    return train, test, (f"{source.name} has no split to score: a fixed {fifth}, {len(test.images)} of {len(cut)} "
                         f"images, was cut off for it",)


def _choose(part: Part, source: Source, classes: int | None, per_class: int | None) -> Part:
    """The first classes, and the first images of each."""
    if classes is None and per_class is None:
        return part
    if part.targets is None:
        raise Mistake(f"classes and per_class need labelled images; {source.name} has images without. Leave them unset")
    if classes is not None and classes > len(source.classes):
        raise Mistake(f"classes keeps the first so many classes; got {classes}, where {source.name} has "
                      f"{len(source.classes)}. Ask for fewer")
    rows = (part.targets < (classes or len(source.classes))).nonzero()[:, 0]
    if per_class is not None:
        by_class = part.targets[rows].sort(stable=True)
        first = torch.searchsorted(by_class.values, by_class.values)                # where the class of each begins
        rows = rows[by_class.indices[torch.arange(len(rows)) - first < per_class].sort().values]
    return part.select(rows)


class _Plan(NamedTuple):
    """Pixels a side to resize to, None for the images' own; the shorter side that results; whether to hold them."""

    size: int | None
    side: int
    held: bool


def _plan(parts: Sequence[Part], settings: DataSettings) -> _Plan:
    """How images are brought to one size, and whether all of them are held in memory."""
    size = settings.size if isinstance(settings.size, int) else None
    for part, what in zip(parts, ("train on", "score"), strict=True):
        if not len(part.images):
            raise Mistake(f"there must be images to {what}; {settings.source} has none of the chosen classes. "
                          "Choose more classes, or put images there")
    encoded = [part.images for part in parts if not isinstance(part.images, Tensor)]
    if size and not encoded:
        return _Plan(size, size, True)
    shapes = [(size, size)] if size else [
        shape for part in parts for shape in _shapes(part.images, skip=settings.skip_unreadable)]
    if len(set(shapes)) > 1:
        if settings.in_memory or statistics.median(map(min, shapes)) < STREAMED_SIZE:
            raise Mistake(f"images need one size; those of {settings.source} have {min(shapes)} to {max(shapes)} "
                          "(width, height). Give the size to bring all of them to")
        return _Plan(STREAMED_SIZE, STREAMED_SIZE, False)
    width, height = shapes[0]
    wanted = sum(len(part.images) for part in parts) * 3 * width * height
    held = not encoded or (wanted <= BUDGET if settings.in_memory is None else settings.in_memory)
    return _Plan(size if held else size or min(width, height), min(width, height), held)


def _shapes(images: Tensor | Encoded, *, skip: bool) -> list[tuple[int, int]]:
    """Width and height of some images."""
    return [(images.shape[3], images.shape[2])] if isinstance(images, Tensor) else some_shapes(images, skip=skip)


def _augmentation(side: int, source: Source, settings: DataSettings) -> Augmentation:
    kind = settings.augment
    if kind == "auto":
        kind = "resized-crop" if side > LARGE else "crop-flip" if source.mirrored else "crop"
    padding = side // 8 if settings.padding is None else settings.padding
    if kind in ("crop", "crop-flip") and settings.padding_mode == "reflect" and padding >= side:
        raise Mistake(f"reflect padding must be smaller than the image; got {padding} for a side of {side} pixels. "
                      "Set a smaller padding, or padding_mode zeros")
    after = RandAugment(settings.rand_augment, settings.erase)
    return Augmentation(kind, padding, settings.padding_mode, after if after.columns else None)


def _split(part: Part, plan: _Plan, share: float, *, skip: bool, keep: bool) -> Split:
    """A part decoded, or ready to be; without what cannot be."""
    images, targets = part.images, part.targets
    if isinstance(images, Tensor):
        larger = plan.size is not None and plan.size > min(images.shape[2:])
        return Split.whole(Images(images, plan.size) if larger else Images(resize(images, plan.size)), targets)
    if plan.held:
        pixels, kept = decoded(images, plan.size, skip=skip, keep=keep)
        return Split.whole(Images(pixels), None if targets is None else targets[kept])
    kept = readable(images) if skip else torch.arange(len(images))
    return Split.whole(Streamed(images.select(kept.tolist()), plan.side, share),
                       None if targets is None else targets[kept])
