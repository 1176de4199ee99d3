"""Training throughput of limbeck against plain PyTorch loops and torchdistill, data loading included, in one run.

    python benchmarks/against.py [--methods kd dkd ...] [--batch 64] [--steps 10] [--rounds 5] [--device cpu]
        [--out FOLDER]

Every candidate trains the same networks by the same method on the same random images, cropped and mirrored, in a
process of its own: what limbeck asks of its process does not speed up the others. Candidates take turns of a few steps,
round after round; a ratio is the median over rounds of the ratio within a round, so that a machine whose speed drifts
does not matter. KD runs once more with its teacher's logits read from a cache of all 162 views of each image; what
filling one takes is measured beside. Plain loops (benchmarks/plain) and torchdistill run as published code does: Pillow
images in a DataLoader of two workers, float32. torchdistill is compared where it is installed, for what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from limbeck.cache import remember
from limbeck.cache.filling import fill
from limbeck.config import CacheSettings
from limbeck.data import Batches, Split
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
from steps import CLASSES, CROPS, Bench, filled, images, network, replaced

LIVE, CACHED, VIEWS = "as it comes", "as it comes, cached", 2 * 9 * 9
Turn = Callable[[], None]
LIVE, CACHED, FILLING, VIEWS = "limbeck, as it comes", "limbeck, cached", "filling a cache", 2 * 9 * 9
IMAGES, NEGATIVES = 20_000, 16_384
SMALL, WIDE = ("resnet32x4", "resnet8x4"), ("wrn_40_2", "wrn_16_2")
METHODS = ("kd", "dkd", "reviewkd", "crd", "ffsd", "distpro search", "distpro retrain")


@dataclass
class Contest:
    """Makes the candidates of one method, in the process in which they run.

    Attributes:
        batch: Images in a step.
        steps: Of a turn.
        device: Where; None takes the best there is.
    """

    batch: int
    steps: int
    device: torch.device

    def names(self, method: str) -> list[str]:
        """Who takes part."""
        named = ["plain loop"]
        if method in torchdistilled.JOBS and importlib.util.find_spec("torchdistill") and self.device.type == "cpu":
            named.append("torchdistill")
        return [*named, LIVE, "limbeck, float32", *[CACHED] * (method == "kd")]

    def candidate(self, method: str, name: str) -> Turn:
        """A turn of steps of one of them; or, by the name `FILLING`, of filling a cache."""
        torch.manual_seed(0)
        if name == FILLING:
            return self.filling()
        if name == "torchdistill":
            return self.torchdistill(method)
        return self.plain(method) if name == "plain loop" else self.limbeck(
            method, "float32" if "float32" in name else "auto", cached=name == CACHED)

    @cached_property
    def split(self) -> Split:
        """The images, as limbeck holds them."""
        return images(IMAGES)

    @property
    def plain_images(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The images, and their labels."""
        return self.split.store.sample(self.split.index), self.split.labels

    # --- limbeck

    def limbeck(self, method: str, precision: str, *, cached: bool = False) -> Turn:
        """The real loop over the real batches; where wanted it reads its teacher's logits."""
        bench = Bench(self.batch, precision, str(self.device))
        bench.batches = batches = Batches(self.split, self.batch, train=True, augmentation=CROPS, device=self.device)
        bench.setting = replace(bench.setting, labels=self.split.labels, rows=self.split.index)
        made = self._method(method, bench)
        if cached:
            batches.repertoire = filled(made, self.split, bench.folder / "cache").repertoire
        trainer = bench.search(made) if method == "distpro search" else bench.trainer(made)
        epochs = count()

        def turn() -> None:
            for batch in islice(batches.epoch(next(epochs)), self.steps):
                trainer._step(batch)
        return turn

    def filling(self) -> Turn:
        """Computes and stores all views of one batch, into a new cache each time."""
        bench, some = Bench(self.batch, "auto", str(self.device)), replace(self.split, index=torch.arange(self.batch))

        def turn() -> None:
            made, folder = self._method("kd", bench), tempfile.mkdtemp(dir=bench.folder)
            found = remember([Stage(made)], CacheSettings(folder=folder), some, CROPS, {})
            trainer = bench.trainer(made)
            fill(found.networks["teacher"], found.repertoire, some, batch_size=self.batch, device=self.device,
                 workers=0, autocast=trainer.autocast, tell=lambda views: None)
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
        data = SmallImages(*self.plain_images, NEGATIVES if method == "crd" else 0)
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
        data = SmallImages(*self.plain_images)
        return torchdistilled.Box(config, *(build(n, CLASSES) for n in SMALL), data, self.batch, self.steps).epoch


class Rival:
    """A candidate in a process of its own, which trains when it is told to.

    Args:
        contest: Makes it.
        method: Of distillation.
        name: The candidate's.
    """

    def __init__(self, contest: Contest, method: str, name: str):
        processes = multiprocessing.get_context("spawn")
        self.pipe, other = processes.Pipe()
        self.process = processes.Process(target=serve, args=(other, contest, method, name))
        self.process.start()
        other.close()

    def turn(self) -> float:
        """Seconds of a turn."""
        self.pipe.send("go")
        seconds: float = self.pipe.recv()
        return seconds

    def end(self) -> None:
        """No more turns."""
        self.pipe.send("stop")
        self.process.join()


def serve(pipe: Connection, contest: Contest, method: str, name: str) -> None:
    """Turns, as they are asked for; the seconds of each go back."""
    turn = contest.candidate(method, name)
    while pipe.recv() == "go":
        wait(contest.device)
        began = time.perf_counter()
        turn()
        wait(contest.device)
        pipe.send(time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """Until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(contest: Contest, method: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each candidate; one round of warm-up is not counted."""
    rivals = {name: Rival(contest, method, name) for name in contest.names(method)}
    turns = [{name: rival.turn() for name, rival in rivals.items()} for _ in range(rounds + 1)][1:]
    for rival in rivals.values():
        rival.end()
    rows = []
    for name in rivals:
        ratios = {other: statistics.median(turn[other] / turn[name] for turn in turns)
                  for other in ("plain loop", "torchdistill") if other in rivals and name.startswith("limbeck")}
        seconds = statistics.median(turn[name] for turn in turns)
        rows.append({"method": method, "candidate": name, "images_per_second": contest.batch * contest.steps / seconds,
                     "times_as_fast_as": ratios})
    return rows


def paying(contest: Contest, rows: list[dict[str, Any]]) -> dict[str, float]:
    """What filling a cache takes, in seconds a view, and after how many epochs it has paid."""
    rival = Rival(contest, "kd", FILLING)
    view = rival.turn() / (VIEWS * contest.batch)
    rival.end()
    live, read = (next(1 / row["images_per_second"] for row in rows if row["candidate"] == name)
                  for name in (LIVE, CACHED))
    return {"seconds_a_view": view, "views": VIEWS, "pays_after_epochs": VIEWS * view / (live - read)}


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
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    contest, rows, cache = Contest(arguments.batch, arguments.steps, device), [], {}
    for method in arguments.methods:
        began = time.perf_counter()
        rows += measured(contest, method, arguments.rounds)
        if method == "kd":
            cache = paying(contest, rows)
        print(f"{method}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    text = markdown(rows)
    if cache:
        text += (f"\n\nFilling the cache takes {1000 * cache['seconds_a_view']:.2f} ms a view, {VIEWS} views an image: "
                 f"it pays after {cache['pays_after_epochs']:.0f} epochs.")
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        made = about(batch=arguments.batch, steps=arguments.steps, rounds=arguments.rounds,
                     threads=torch.get_num_threads(), on=str(device))
        path = arguments.out / f"against-{device.type}"
        path.with_suffix(".md").write_text(text + "\n")
        path.with_suffix(".json").write_text(json.dumps({"about": made, "rows": rows, "cache": cache}, indent=2) + "\n")


if __name__ == "__main__":
    main()
