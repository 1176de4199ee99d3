"""Training throughput of limbeck against plain PyTorch loops and torchdistill, data loading included, in one run.

    python benchmarks/against.py [--methods kd dkd ...] [--batch 64] [--steps 10] [--rounds 5] [--device cpu]
        [--out FOLDER]

Every candidate trains the same networks by the same method on the same random images, cropped and mirrored. Candidates
take turns of a few steps, round after round; a ratio is the median over rounds of the ratio within a round, so that a
machine whose speed drifts does not matter. Plain loops (benchmarks/plain) and torchdistill run as published code does:
Pillow images in a DataLoader of two workers, float32. torchdistill is compared where it is installed, for what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from limbeck.data import Augmentation, Batches
from limbeck.method import Method, Stage
from limbeck.methods.crd import crd
from limbeck.methods.distpro import distpro
from limbeck.methods.dkd import dkd
from limbeck.methods.ffsd import ffsd
from limbeck.methods.kd import kd
from limbeck.methods.reviewkd import reviewkd
from limbeck.networks import build
from limbeck.runs import about

sys.path.insert(0, str(Path(__file__).parent))

from plain import torchdistilled
from plain.crd import CRD
from plain.data import SmallImages, loader
from plain.distpro import Retrain, Search
from plain.ffsd import FFSD
from plain.kd import DKD, KD
from plain.networks import with_features
from plain.reviewkd import ReviewKD
from steps import CLASSES, Bench, images, network, replaced

Turn = Callable[[], None]
IMAGES, NEGATIVES = 20_000, 16_384
SMALL, WIDE = ("resnet32x4", "resnet8x4"), ("wrn_40_2", "wrn_16_2")
METHODS = ("kd", "dkd", "reviewkd", "crd", "ffsd", "distpro search", "distpro retrain")


class Contest:
    """Makes the candidates of one method; each is called to train a few steps."""

    def __init__(self, batch: int, steps: int, device: str | None):
        self.batch, self.steps = batch, steps
        self.split = images(IMAGES)
        self.pixels, self.labels = self.split.store.sample(self.split.index), self.split.labels
        self.benches = {precision: Bench(batch, precision, device) for precision in ("auto", "float32")}
        self.device = self.benches["auto"].accelerator.device

    def candidates(self, method: str) -> dict[str, Turn]:
        """Name -> a turn of steps."""
        found = {"plain loop": self.plain(method)}
        if method in torchdistilled.JOBS and importlib.util.find_spec("torchdistill") and self.device.type == "cpu":
            found["torchdistill"] = self.torchdistill(method)
        return found | {f"limbeck, {name}": self.limbeck(method, precision)
                        for name, precision in (("as it comes", "auto"), ("float32", "float32"))}

    # --- limbeck

    def limbeck(self, method: str, precision: str) -> Turn:
        """The real loop over the real batches."""
        bench = self.benches[precision]
        batches = Batches(self.split, self.batch, train=True, augmentation=Augmentation("crop-flip", 4),
                          device=self.device)
        bench.batches = batches
        bench.setting = bench.setting.__class__(bench.setting.task, bench.setting.classes, self.split.labels,
                                                self.split.index, bench.batch)
        made = self._method(method, bench)
        trainer = bench.search(made) if method == "distpro search" else bench.trainer(made)
        epochs = count()

        def turn() -> None:
            for batch in islice(batches.epoch(next(epochs)), self.steps):
                trainer._step(batch)
        return turn

    @staticmethod
    def _method(method: str, bench: Bench) -> Method:
        if method == "ffsd":
            stages: list[Stage] = ffsd(replaced(network("resnet32"), lambda: build("resnet32", CLASSES)), bench.setting)
            return stages[0].method
        teacher, student = map(network, WIDE if method.startswith("distpro") else SMALL)
        makes = {"kd": kd, "dkd": dkd, "reviewkd": reviewkd, "crd": crd}
        return makes.get(method, distpro)(student, teacher, bench.setting)

    # --- others

    def plain(self, method: str) -> Turn:
        """A loop written by hand."""
        data = SmallImages(self.pixels, self.labels, NEGATIVES if method == "crd" else 0)
        few = torch.stack([data[place][0] for place in range(2)]).to(self.device)
        teacher, student = (build(name, CLASSES).to(self.device)
                            for name in (WIDE if method.startswith("distpro") else SMALL))
        batches = loader(data, self.batch, self.steps)
        if method in ("kd", "dkd"):
            job: Any = {"kd": KD, "dkd": DKD}[method](teacher, student)
        elif method == "ffsd":
            job = FFSD(lambda: with_features(build("resnet32", CLASSES).to(self.device)), [16, 32, 64], CLASSES)
        else:
            networks = with_features(teacher), with_features(student)
            job = {"reviewkd": lambda: ReviewKD(*networks, few), "crd": lambda: CRD(*networks, few, IMAGES),
                   "distpro retrain": lambda: Retrain(*networks, few),
                   "distpro search": lambda: Search(*networks, few, self._endless(data))}[method]()

        def turn() -> None:
            for batch in batches:
                job.step(*(x.to(self.device) for x in batch))
        return turn

    def _endless(self, data: SmallImages) -> Iterator[Any]:
        """Held-out batches for ever, loaded like the others."""
        held_out = loader(data, self.batch, self.steps)
        while True:
            yield from ([x.to(self.device) for x in batch] for batch in held_out)

    def torchdistill(self, method: str) -> Turn:
        """Its distillation box."""
        options = {"negatives": NEGATIVES} if method == "crd" else {}
        config = torchdistilled.JOBS[method]((256, 256), IMAGES, **options)
        data = SmallImages(self.pixels, self.labels)
        return torchdistilled.Box(config, *(build(n, CLASSES) for n in SMALL), data, self.batch, self.steps).epoch

    # --- time

    def measured(self, method: str, rounds: int) -> list[dict[str, Any]]:
        """A row for each candidate."""
        candidates = self.candidates(method)
        seconds = self.benches["auto"].time(candidates, rounds)
        rows = []
        for name, times in seconds.items():
            ratios = {other: statistics.median(b / a for a, b in zip(times, seconds[other], strict=True))
                      for other in ("plain loop", "torchdistill") if other in seconds and name.startswith("limbeck")}
            rows.append({"method": method, "candidate": name, "images_per_second":
                         self.batch * self.steps / statistics.median(times), "times_as_fast_as": ratios})
        return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of them."""
    lines = ["| method | who | images/s | ÷ plain loop | ÷ torchdistill |", "|---|---|---:|---:|---:|"]
    for row in rows:
        ratios = [f"{row['times_as_fast_as'][other]:.2f}" if other in row["times_as_fast_as"] else ""
                  for other in ("plain loop", "torchdistill")]
        speed = f"{row['images_per_second']:.0f}"
        lines.append("| " + " | ".join([row["method"], row["candidate"], speed, *ratios]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    contest = Contest(arguments.batch, arguments.steps, arguments.device)
    rows = []
    for method in arguments.methods:
        began = time.perf_counter()
        rows += contest.measured(method, arguments.rounds)
        print(f"{method}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(markdown(rows))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        made = about(batch=arguments.batch, steps=arguments.steps, rounds=arguments.rounds,
                     threads=torch.get_num_threads(), on=str(contest.device))
        path = arguments.out / f"against-{contest.device.type}"
        path.with_suffix(".md").write_text(markdown(rows) + "\n")
        path.with_suffix(".json").write_text(json.dumps({"about": made, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
