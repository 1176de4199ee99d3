"""Figures as SVG that belongs into a page: its colours and its font are the page's, its identifiers nobody else's."""

from __future__ import annotations

import io
import re
from html import escape
from itertools import count

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from limbeck.report.look import INK, LINE, MUTED, PAPER

_NUMBER = count()
_OF_THE_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)"}


def inline(figure: Figure, *, label: str) -> str:
    """An `<svg>` element for a page that defines --ink, --muted, --line and --paper.

    Args:
        figure: What to draw; its background stays clear.
        label: What it shows, for those who cannot see it.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"limbeck {next(_NUMBER)}"}):
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})  # savefig would draw it all twice
    text = file.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    tag = text[:text.index(">")]
    text = text.replace(tag, re.sub(r' (?:height|width)="[^"]*"', "", tag), 1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), text)
    for color, variable in _OF_THE_PAGE.items():
        text = text.replace(color, variable)
    return text.strip()
