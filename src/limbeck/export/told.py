"""The table of what was exported: files and networks, how large, how fast, how near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.report.costing import aligned


@dataclass
class Row:
    """A network or a file.

    Attributes:
        what: Its name.
        runs_in: What computes with it.
        size: Bytes; of a network, those of its weights.
        network: Of which architecture; of files, that of the student.
        parameters: Of a network.
        macs: Multiply-adds for one image, of a network.
        latency: Milliseconds for one image.
        difference: Of a file: largest difference from the network's answers.
        score: On the test split, where it was asked for.
    """

    what: str
    runs_in: str
    size: int
    network: str = ""
    parameters: int | None = None
    macs: float | None = None
    latency: float | None = None
    difference: float | None = None
    score: float | None = None

    def as_json(self) -> dict[str, Any]:
        """What is known of it, units in the names."""
        named = {"what": "what", "runs_in": "runs_in", "size": "bytes", "network": "network",
                 "parameters": "parameters", "macs": "macs_per_image", "latency": "latency_ms",
                 "difference": "largest_difference", "score": "score"}
        return {named[key]: value for key, value in asdict(self).items() if value not in (None, "")}


def as_text(rows: Sequence[Row], score: str, threads: int, notes: Sequence[str], out: Path) -> str:
    """A line each, plain text, under what the numbers are."""
    head = (f"one image at a time on the CPU, {threads} thread{'s' * (threads != 1)}: median of warm runs; MMACs: "
            f"million multiply-adds, FLOPs are twice as many; difference: largest from the network's answers")
    scored = any(row.score is not None for row in rows)
    headers = ("", "runs in", "KiB", "parameters", "MMACs", "ms", "difference", *[f"test {score}"] * scored)
    lines = [(f"{row.what} {row.network}".rstrip(), row.runs_in, f"{row.size / 1024:,.1f}",
              _told(row.parameters, ","), _told(None if row.macs is None else row.macs / 1e6, ",.2f"),
              _told(row.latency, ",.3g"), _told(row.difference, ".1e"), *[_told(row.score, ".2f")] * scored)
             for row in rows]
    return "\n".join([head, aligned([headers, *lines]), *notes, f"the files are in {out}"])


def _told(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
