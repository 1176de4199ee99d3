"""Which stage of a teacher teaches which of a student, where both are any networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from limbeck.connectors import map_shape
from limbeck.members import Network


def stride(network: Network, tap: str) -> float | None:
    """How many pixels of the image a step on a tap's map is; None for what has no places."""
    shape = network.shape(tap)
    return network.size[1] / map_shape(shape)[1] if len(shape) > 1 else None


def paired(student: Network, teacher: Network) -> list[tuple[str, str]]:
    """(student stage, teacher stage), shallow to deep.

    Networks with as many stages pair them in order, as the standard benchmark does. Of others, those whose maps shrink
    pair stages by stride: the ones nearest to each other, in order. Where one of them keeps its size from end to end,
    as a vision transformer does, stages meet at the same part of the way, the last with the last.
    """
    few, many = sorted((student, teacher), key=lambda network: len(network.stages))
    if len(few.stages) == len(many.stages):
        return list(zip(student.stages, teacher.stages, strict=True))
    (narrow, wide), count = (_strides(few), _strides(many)), len(few.stages)
    shrinking = len(set(narrow)) > 1 and len(set(wide)) > 1
    places = _nearest(narrow, wide) if shrinking else [round((k + 1) * len(wide) / count) - 1 for k in range(count)]
    pairs = [(stage, many.stages[place]) for stage, place in zip(few.stages, places, strict=True)]
    return pairs if few is student else [(own, source) for source, own in pairs]


def _strides(network: Network) -> list[float]:
    return [stride(network, stage) or 1.0 for stage in network.stages]


def _nearest(few: Sequence[float], many: Sequence[float]) -> Sequence[int]:
    """Places in the longer row, in order, whose strides differ least, by factor; the deepest of equal choices."""
    def gap(places: Sequence[int]) -> float:
        return round(sum(abs(math.log2(own / many[place])) for own, place in zip(few, places, strict=True)), 6)

    return min(reversed(list(combinations(range(len(many)), len(few)))), key=gap)


def shown(student: Network, teacher: Network) -> str:
    """The pairs, a line each, with shapes and strides."""
    lines = [f"{own} of the student, {_about(student, own)}  <-  {source} of the teacher, {_about(teacher, source)}"
             for own, source in paired(student, teacher)]
    return "\n".join(lines) or "no stages pair: one of the two has none"


def unlike(student: Network, teacher: Network) -> list[str]:
    """What a person should know of the pairs: nothing where stages of the same stride pair in order."""
    pairs = paired(student, teacher)
    alike = all(stride(student, own) == stride(teacher, source) for own, source in pairs)
    if alike and len(student.stages) == len(teacher.stages):
        return []
    listed = ", ".join(f"{source} (stride {stride(teacher, source):g}) teaches {own} ({stride(student, own):g})"
                       for own, source in pairs)
    return [f"{teacher.name} and {student.name} differ in stages; where a method pairs them, {listed}."]


def _about(network: Network, tap: str) -> str:
    return f"{' x '.join(map(str, network.shape(tap)))}, stride {stride(network, tap):g}"
