"""Which of a job's frozen networks are remembered, over which views of the images, and why others are not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from limbeck.cache.remembered import Remembered
from limbeck.cache.rows import Row
from limbeck.cache.store import Cache, described
from limbeck.config import CacheSettings
from limbeck.data import Augmentation, EveryView, Joint, Repertoire, SomeViews, Split, views_of
from limbeck.errors import Mistake
from limbeck.members import Frozen, Member, Network
from limbeck.method import Stage

_FEW = 20  # views of an image that has more than can be counted; where as many passes are short


@dataclass(frozen=True)
class Remembering:
    """What a job remembers.

    Attributes:
        repertoire: The views that it trains on.
        networks: Those whose outputs are stored, by the name of their folder.
        live: Why another frozen network runs in every step, by name.
    """

    repertoire: Repertoire
    networks: dict[str, Remembered]
    live: dict[str, str]

    def told(self) -> list[str]:
        """What a user should know, a sentence each."""
        said = []
        for name, one in self.networks.items():
            total = one.cache.views
            said.append(f"cache: {one.cache.stored:,} of {total:,} views of {name} are stored in {one.cache.folder} "
                        f"({self.repertoire.count} of an image, {one.cache.row.size:,} bytes each, "
                        f"{memory(total * one.cache.row.size)} in all).")
        return [*said, *(f"cache: {name} is not stored, as {why}." for name, why in self.live.items())]


@dataclass
class _Wanted:
    """A frozen network that is read, wherever it stands.

    Attributes:
        network: What teaches.
        places: The stages in which it does so, and its name there.
        taps: What is read of it.
        why: Why it cannot be remembered, if so.
    """

    network: Member
    places: list[tuple[Stage, str]] = field(default_factory=list)
    taps: list[str] = field(default_factory=list)
    why: str | None = None


def remember(stages: Sequence[Stage], settings: CacheSettings, split: Split, augmentation: Augmentation | Joint,
             about: Mapping[str, Any]) -> Remembering:
    """Put `Remembered` networks in the place of the stages' frozen ones, where that changes nothing but the time.

    Args:
        stages: Whose frozen networks they are.
        settings: Where, what and how much.
        split: What is trained on.
        augmentation: How training images are changed.
        about: What else tells outputs of one network from others: the data, the precision they are computed in.

    Raises:
        Mistake: If nothing can be stored, with the reasons; or a cache holds something else.
    """
    read = _read(stages, settings)
    live = {name: one.why for name, one in read.items() if one.why is not None}
    wanted = {name: one for name, one in read.items() if one.why is None}
    if not wanted:
        reasons = "; ".join(f"{name}: {why}" for name, why in live.items()) or "the method has no frozen network"
        raise Mistake(f"a cache stores outputs of frozen networks; there is none to store here ({reasons}). Leave "
                      f"--cache out, or give a method and settings with which one can be stored.")
    folders = {name: Path(settings.folder or "") / name for name in wanted}
    rows = {name: _row(one, settings, described(folders[name])) for name, one in wanted.items()}
    images = len(split.store)
    before = next((found for folder in folders.values() if (found := described(folder))), None)
    repertoire = _repertoire(augmentation, images, sum(row.size for row in rows.values()), settings, before)
    views = {"count": repertoire.count, "seed": repertoire.seed if isinstance(repertoire, SomeViews) else None}
    networks = {}
    for name, one in wanted.items():
        assert isinstance(one.network, Network)
        classes = None if one.network.places is None else one.network.places.tolist()
        network = {"name": one.network.name, "fingerprint": one.network.fingerprint(), "classes": classes}
        whole = {"network": network, **about, "images": images, "image_size": list(split.store.image_size),
                 "read": type(split.store).__name__, "augmentation": _described(augmentation), "views": views,
                 "outputs": rows[name].described()}
        networks[name] = Remembered(one.network, Cache(folders[name], whole, rows[name], images * repertoire.count))
        for stage, called in one.places:
            stage.method.frozen[called] = networks[name]
    return Remembering(repertoire, networks, live)


def _read(stages: Sequence[Stage], settings: CacheSettings) -> dict[str, _Wanted]:
    """Frozen networks by their names; where another stage has another one of a name, by the stage's name as well."""
    found: dict[str, _Wanted] = {}
    for stage in stages:
        for called, frozen in stage.method.frozen.items():
            read = (address.partition(".") for address in stage.method.reads())
            taps = [tap for member, _, tap in read if member == called]
            if not taps:
                continue
            free = called not in found or found[called].network is frozen.network
            one = found.setdefault(called if free else f"{stage.name}-{called}", _Wanted(frozen.network))
            one.places.append((stage, called))
            one.taps += taps
            one.why = one.why or _why_not(frozen, taps, stages, settings)
    return found


def _why_not(frozen: Frozen, taps: Sequence[str], stages: Sequence[Stage], settings: CacheSettings) -> str | None:
    """Why a frozen network's outputs cannot be stored, if so."""
    network = frozen.network
    if not isinstance(network, Network):
        return "it looks at what others computed, not at images"
    if frozen.batch_statistics:
        return "it normalises by the batch, so that its outputs depend on the images beside"
    if frozen.view is not None:
        return "it looks at a further view of each image, which is not counted"
    if any(network is member for stage in stages for member in stage.method.members.values()):
        return "it learns in this very run"
    missing = [tap for tap in dict.fromkeys(taps) if settings.taps is not None and tap not in settings.taps]
    if missing:
        return f"the method reads its {missing} and cache.taps stores {list(settings.taps or ())}; null stores all"
    return None


def _row(wanted: _Wanted, settings: CacheSettings, before: Mapping[str, Any] | None) -> Row:
    """What is stored of a network: a cache that has more than is asked for stays as it is."""
    taps = list(dict.fromkeys(settings.taps or wanted.taps))
    there = list(before["outputs"]["taps"]) if before else []
    taps = there if set(there) >= set(taps) else sorted(taps)
    assert isinstance(wanted.network, Network)
    wanted.network.tap(taps)
    return Row.of({tap: wanted.network.shape(tap) for tap in taps}, settings)


def _repertoire(augmentation: Augmentation | Joint, images: int, size: int, settings: CacheSettings,
                before: Mapping[str, Any] | None) -> Repertoire:
    """All views of an image, or as many as are asked for, are there, or fit."""
    every = views_of(augmentation)
    alike = before is not None and before["augmentation"] == _described(augmentation)  # others are refused later
    count = settings.views or (before["views"]["count"] if before and alike else None)
    if count is None:
        fit = int(settings.gib * 2**30 / (images * size))
        if not fit:
            raise Mistake(f"one view of each of {images:,} images takes {memory(images * size)}, and cache.gib leaves "
                          f"{settings.gib:g} GiB. Give more, or store less: cache.top_k, cache.taps, cache.precision.")
        count = min(fit, every or _FEW)
    if every is not None and count > every:
        raise Mistake(f"an image has {every} views under {augmentation.kind}, and cache.views is {count}. Give fewer, "
                      f"or leave it out.")
    if count == every and isinstance(augmentation, Augmentation):
        return EveryView(augmentation)
    return SomeViews(augmentation, images, count, settings.seed)


def _described(augmentation: Augmentation | Joint) -> dict[str, Any]:
    """An augmentation as a cache's description has it when it is read again."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(augmentation)))
    return described


def memory(size: float) -> str:
    """Bytes as a person says them: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
