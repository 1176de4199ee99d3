"""What the page is put together from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from limbeck.report.inline import inline


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it; empty parts are left out."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def picture(draw: Callable[[bool], Figure], caption: str) -> str:
    """A picture twice, of which the style sheet shows the one that fits the screen."""
    return (f'<figure><div class="wide">{inline(draw(False), label=caption)}</div>'
            f'<div class="narrow">{inline(draw(True), label=caption)}</div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def folded(title: str, content: str) -> str:
    """Something that opens on a click."""
    return f"<details><summary>{escape(title)}</summary><div>{content}</div></details>"


def facts(told: Mapping[str, str]) -> str:
    """A list of things and what is known of them."""
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in told.items()) + "</dl>"


def flattened(tree: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """A tree of facts without levels, `data name` for `name` in `data`."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        below = flattened(value, f"{place}{key} ") if isinstance(value, Mapping) else None
        flat |= {f"{place}{key}": str(value).removesuffix(".0")} if below is None else below
    return flat


def tabled(headers: Sequence[str], lines: Sequence[Sequence[str]], *, texts: int, score: str = "") -> str:
    """A table; on a phone each line becomes a card.

    Args:
        headers: Of the columns.
        lines: A text for each column.
        texts: How many columns there are before the numbers; `measure` is no number either.
        score: What the header of the column that counts begins with; on a card it stands beside the first.
    """
    kinds = ["" if i < texts or header == "measure" else ' class="number score"' if score and header.startswith(score)
             else ' class="number"' for i, header in enumerate(headers)]
    head = "".join(f"<th{kind}>{escape(header)}</th>" for header, kind in zip(headers, kinds, strict=True))
    body = "\n".join("<tr>" + "".join(f'<td{kind} data-label="{escape(header)}">{escape(text)}</td>'
                                      for header, text, kind in zip(headers, line, kinds, strict=True)) + "</tr>"
                     for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
