"""The table of what each part of a method costs."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.evaluation.cost import Cost

_HEADERS = ("part", "", "passes", "parameters", "MMACs", "forward ms", "backward ms")


def as_text(found: Sequence[Cost]) -> str:
    """A line each, plain text: the parts, their sum (a part counts as often as it runs), the step, what ships."""
    parts = [cost for cost in found if cost.kind not in ("step", "deployed")]
    lines = [_line(cost) for cost in parts]
    lines.append(("sum of parts", "", "", f"{sum(cost.parameters for cost in parts):,}",
                  *_numbers(*(sum(cost.passes * value for cost, value in zip(parts, values, strict=True))
                              for values in zip(*((c.macs, c.forward, c.backward) for c in parts), strict=True)))))
    named = {"step": "one step, measured whole", "deployed": "deployed network alone"}
    lines += [(named[cost.kind], "", *_line(cost)[2:]) for cost in found if cost.kind in named]
    return aligned([_HEADERS, *lines])


def _line(cost: Cost) -> tuple[str, ...]:
    return (cost.part, cost.kind, f"{cost.passes:.3g}", f"{cost.parameters:,}",
            *_numbers(cost.macs, cost.forward, cost.backward))


def _numbers(macs: float, forward: float, backward: float) -> tuple[str, str, str]:
    return f"{macs / 1e6:,.2f}", f"{forward:,.1f}", f"{backward:,.1f}" if backward >= 0.05 else "-"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of a table in plain text, the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(text.ljust(width) if i < 2 else text.rjust(width)
                               for i, (text, width) in enumerate(zip(line, widths, strict=True))).rstrip()
                     for line in lines)
