"""A method under another process than its own: weights of its terms to be searched, or replayed from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from limbeck.config import Job, ScheduleSettings
from limbeck.errors import Mistake, nearest
from limbeck.method import Method
from limbeck.methods import SEARCHED
from limbeck.process import Learned, Replayed
from limbeck.process.recorded import Recorded
from limbeck.wiring import own, parts_of


def searches(name: str) -> bool:
    """Whether a method's paper, or that of a part of a blend, searches weights: `distill` then does so first."""
    return any(part in SEARCHED for part in parts_of(name))


def searched_terms(method: Method, job: Job) -> tuple[str, ...]:
    """Terms whose weights are searched; all others keep the method's own.

    They are those that `search.terms` names. Where it names none: in a blend with methods whose papers search, the
    terms of these, so that IFVD's keep their weights in `ifvd+distpro`; or else all terms but the supervised ones.

    Raises:
        Mistake: If a pattern fits no term.
    """
    names, parts = method.searchable(), parts_of(job.method.name)
    patterns = job.search.terms
    if patterns is None:
        theirs = [f"{own.short(part)}/*" for part in parts if part in SEARCHED]
        patterns = theirs if theirs and len(parts) > 1 else ["*"]
    for pattern in patterns:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise Mistake(f"search.terms names the terms whose weights are searched; none of {job.method.name} fits "
                          f"'{pattern}'; {nearest(pattern, names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def under_search(method: Method, job: Job) -> Method:
    """The method with weights of its terms to be learned."""
    return method.under(Learned(
        method.process, searched_terms(method, job), normalise=job.process.normaliser, scale=job.process.scale,
        start=job.search.start, threshold=job.process.threshold if job.search.clip else None,
        refresh=job.search.refresh))


def under_replay(method: Method, job: Job, recorded: Recorded | None) -> tuple[Method, str | None]:
    """The method under a recorded process, or the terms that would be searched equally weighted where none is given.

    Terms that the search had, and left alone, keep the method's own weight. A process of a method alone serves the
    method in a blend, whose other terms keep their weights, and the other way round.

    Returns:
        The method, and what did not match, if anything.

    Raises:
        Mistake: If the file's terms and the method's are not the same and `unmatched` is `refuse`, or none is shared.
    """
    settings, names = job.process, method.searchable()
    if recorded is None:
        equal = searched_terms(method, job)
        recorded = Recorded.uniform(equal, settings.normaliser, fixed=[name for name in names if name not in equal])
    recorded = _as_called_here(recorded, names, parts_of(job.method.name))
    missing = [name for name in names if name not in recorded.names and name not in recorded.fixed]
    unknown = [name for name in recorded.names if name not in names]
    note = None
    if missing or unknown:
        note = (f"the process and the method do not share all terms; only in the process: {unknown or 'none'}; only in "
                f"the method: {missing or 'none'}")
        if settings.unmatched == "refuse" or len(unknown) == len(recorded.names):
            raise Mistake(f"{note}. Search on networks with the same stages and transforms, or set "
                          f"process.unmatched=drop to leave these terms out.")
    replayed = Replayed(method.process, recorded, absent=missing, use=settings.use, scale=settings.scale,
                        interpolate=settings.interpolate, granularity=settings.granularity,
                        threshold=settings.threshold, clip=settings.clip, warp=_warp(job, recorded))
    return method.under(replayed), note


def _as_called_here(recorded: Recorded, names: Sequence[str], parts: Sequence[str]) -> Recorded:
    """The process with its terms called as in the blend, `distpro/NAME`, or as by their own method alone, `NAME`."""
    if set(recorded.names) <= set(names):
        return recorded
    for prefix in (f"{own.short(part)}/" for part in parts):
        blended = tuple(prefix + name for name in recorded.names)
        if set(blended) <= set(names):
            others = [name for name in names if not name.startswith(prefix)]
            return replace(recorded, names=blended, fixed=(*(prefix + name for name in recorded.fixed), *others))
        alone = tuple(name.removeprefix(prefix) for name in recorded.names)
        if set(alone) <= set(names):
            return replace(recorded, names=alone, fixed=tuple(name.removeprefix(prefix) for name in recorded.fixed))
    return recorded


def _warp(job: Job, recorded: Recorded) -> Sequence[tuple[float, float]] | None:
    """Rate drops of this run onto those of the search, for `warp: drops`."""
    if job.process.warp == "straight":
        return None
    schedule: ScheduleSettings = job.schedule
    theirs = recorded.found.get("drops") or []
    if schedule.kind != "steps" or len(theirs) != len(schedule.drops):
        raise Mistake(f"process.warp=drops needs as many rate drops in this run as in the search; this run has "
                      f"{schedule.drops if schedule.kind == 'steps' else 'none'}, the search had {theirs}. Set "
                      f"schedule.drops, or process.warp=straight.")
    return [(0.0, 0.0), *zip(schedule.drops, theirs, strict=True), (1.0, 1.0)]
