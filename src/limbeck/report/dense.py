"""The page's section on dense tasks: what everyone says of a few test images, beside the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from limbeck.errors import Mistake
from limbeck.report.comparing import predictions
from limbeck.report.grouping import Row, names
from limbeck.report.outcome import Outcome
from limbeck.report.pieces import picture, section
from limbeck.report.predicting import predicted, taught_or_alone

_IMAGES = 3


def said(table: Sequence[Row]) -> str:
    """A picture for each data set and teacher, of every row's first finished run; nothing for classification."""
    done = [row for row in table if row.finished and not row.search and _dense(row.outcomes[0])]
    parts = [_picture(group) for group in _groups(taught_or_alone(done))]
    return section("Predictions", *parts) if parts else ""


def _dense(run: Outcome) -> bool:
    return _data(run).get("task", "classification") != "classification"


def _data(run: Outcome) -> Mapping[str, str]:
    found: Mapping[str, str] = run.about.get("data") or {}
    return found


def _groups(rows: Sequence[Row]) -> Iterator[Mapping[str, Path]]:
    """Runs by what they are called: those of one teacher on one data set, and their students alone."""
    keys = {(_images(row), row.outcomes[0].job.teacher): None for row in rows}
    taught = {images for images, teacher in keys if teacher is not None}
    for images, teacher in keys:
        if teacher is None and images in taught:
            continue  # students alone stand beside those who are taught
        own = [row for row in rows if _images(row) == images and row.outcomes[0].job.teacher in (teacher, None)]
        yield {name: row.counted[0].folder for row, name in zip(own, names(own), strict=True)}


def _images(row: Row) -> str:
    """What tells a row's images and maps from others."""
    return str(_data(row.outcomes[0]).get("fingerprint", row.data))


def _picture(runs: Mapping[str, Path]) -> str:
    """Where data or networks are not there any more, the reason in its place: a page can outlive them."""
    try:
        found = predicted(runs, count=_IMAGES, device="cpu")
    except Mistake as mistake:
        return f'<p class="note">Not drawn: {escape(str(mistake))}</p>'
    return picture(lambda narrow: predictions(found, narrow=narrow), found.caption)
