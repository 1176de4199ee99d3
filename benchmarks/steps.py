"""What a step costs, as ratios in one run: distillation against bare passes, searches against distillation, clipping.

    python benchmarks/steps.py [--batch 64] [--rounds 7] [--precision float32] [--device cpu] [--out FOLDER]

Each candidate takes a step in turn, round after round; a ratio is the median over rounds of the ratio within a round,
so that a machine whose speed drifts does not matter. Writes Markdown and JSON where --out says.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from limbeck.cache import Remembering, remember
from limbeck.config import CacheSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from limbeck.data import Augmentation, Batches, Split
from limbeck.data.images import Images
from limbeck.members import STATISTICS, Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.distpro import distpro
from limbeck.methods.ffsd import ffsd
from limbeck.methods.kd import kd
from limbeck.methods.none import none
from limbeck.networks import build
from limbeck.process import Learned, Replayed
from limbeck.process.recorded import Recorded
from limbeck.progress import Display
from limbeck.runs import Run, about
from limbeck.search import Search
from limbeck.tasks.classification import Classification
from limbeck.training import engine
from limbeck.training.trainer import Trainer

CLASSES = 100
TASK = Classification()
CROPS = Augmentation("crop-flip", 4)


def network(name: str) -> Network:
    """A network of the zoo on 32 x 32 images."""
    return Network(build(name, CLASSES), name=name, size=(3, 32, 32), statistics=STATISTICS["cifar100"])


def images(count: int) -> Split:
    """Random images in memory: arithmetic does not care what they show."""
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split.whole(Images(pixels), torch.randint(CLASSES, (count,)))


class Bench:
    """Makes trainers of one setting and times their steps against each other."""

    def __init__(self, batch: int, precision: str, device: str | None, lr: float = 1e-5):
        self.accelerator, self.lr, self.task = engine.start(device), lr, TASK
        self.settings = TrainingSettings(precision=precision)
        self.split = images(4 * batch)
        self.batches = Batches(self.split, batch, train=True, device=self.accelerator.device)
        self.batch = next(self.batches.epoch(0))
        self.setting = Setting(TASK, tuple(map(str, range(CLASSES))), self.split.labels, self.split.index, self.batch)
        self.folder = Path(tempfile.mkdtemp())

    def trainer(self, method: Method, companion: Search | None = None) -> Trainer:
        """The real loop, ready to step; by itself its rate is tiny, so that nothing drifts."""
        made = Trainer([Stage(method)], self.task, self.batches, {}, Run(self.folder), self.settings,
                       optimizer=OptimizerSettings(lr=self.lr), schedule=ScheduleSettings(kind="constant"),
                       accelerator=self.accelerator, companion=companion, display=Display(quiet=True))
        made._prepare(0, {}, {})
        return made

    def search(self, method: Method, **options: object) -> Trainer:
        """The loop with a search beside it."""
        method = method.under(Learned(method.process, method.searchable()).to(self.accelerator.device))
        autocast = engine.autocast(self.settings.precision, self.accelerator.device)[0]
        return self.trainer(method, Search(method, TASK, autocast=autocast, **{"held_out": self.batches.at, **options}))

    def time(self, candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each candidate, a list over rounds; one round of warm-up is not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for number in range(rounds + 1):
            for name, step in candidates.items():
                self.wait()
                began = time.perf_counter()
                step()
                self.wait()
                if number:
                    seconds[name].append(time.perf_counter() - began)
        return seconds

    def wait(self) -> None:
        """Until the device is idle."""
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()


def filled(method: Method, split: Split, folder: Path) -> Remembering:
    """The method's teacher reads its logits from now on: random ones of all views of every image."""
    found = remember([Stage(method)], CacheSettings(folder=str(folder)), split, CROPS, {})
    cache = found.networks["teacher"].cache
    for ids in torch.arange(cache.views).split(10_000):
        cache.add(ids, cache.row.encode({"logits": torch.randn(len(ids), CLASSES)}))
    cache.close()
    cache.refresh()
    return found


def ratio(seconds: dict[str, list[float]], name: str, *others: str) -> float:
    """Median over rounds of one candidate's time over the sum of others'."""
    rounds = zip(seconds[name], *(seconds[other] for other in others), strict=True)
    return statistics.median(own / sum(rest) for own, *rest in rounds)


def distillation(bench: Bench, rounds: int) -> list[tuple[str, float, str]]:
    """A KD step through the loop, against a bare teacher forward and a bare student step in the same precision."""
    distilled = bench.trainer(kd(network("resnet8x4"), network("resnet32x4"), bench.setting))
    alone = bench.trainer(none(network("resnet8x4"), bench.setting))
    teacher = distilled.method.frozen["teacher"].network
    student, optimizer = alone.method.student(), alone.optimizer

    def teach() -> None:
        with torch.no_grad(), distilled.autocast():
            teacher.module(teacher.normalise(bench.batch.images))

    def learn() -> None:
        with alone.autocast():
            loss = TASK.loss(student.module(student.normalise(bench.batch.images)), bench.batch.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    seconds = bench.time({"kd": lambda: distilled._step(bench.batch), "teacher": teach, "student": learn,
                          "alone": lambda: alone._step(bench.batch)}, rounds)
    return [("KD step / (bare teacher forward + bare student step)", ratio(seconds, "kd", "teacher", "student"),
             "<= 1.03"),
            ("student-alone step / bare student step", ratio(seconds, "alone", "student"), "")]


def reading(bench: Bench, rounds: int) -> list[tuple[str, float, str]]:
    """A KD step that reads its teacher from a cache of all 162 views, against a step of the student alone.

    The rows are random: how many bytes a step reads, and from where, does not depend on what they say.
    """
    method = kd(network("resnet8x4"), network("resnet32x4"), bench.setting)
    found = filled(method, bench.split, bench.folder / "cache")
    distilled, alone = bench.trainer(method), bench.trainer(none(network("resnet8x4"), bench.setting))
    counted = Batches(bench.split, bench.batches.batch_size, train=True, augmentation=CROPS,
                      device=bench.accelerator.device, repertoire=found.repertoire)
    endless = (batch for epoch in itertools.count() for batch in counted.epoch(epoch))
    seconds = bench.time({"read": lambda: distilled._step(next(endless)),
                          "alone": lambda: alone._step(next(endless))}, rounds)
    return [("KD step, the teacher's logits read from a cache / the loop's student-alone step",
             ratio(seconds, "read", "alone"), "<= 1.05")]


def searching(bench: Bench, rounds: int) -> list[tuple[str, float, str]]:
    """A search step by every estimator, against a distillation step; WRN-40-2 -> WRN-16-2, 27 pathways."""
    teacher = network("wrn_40_2")

    def fresh() -> Method:
        return distpro(network("wrn_16_2"), teacher, bench.setting)

    plain = bench.trainer(fresh())
    half = Batches(bench.split, bench.batches.batch_size // 2, train=True, device=bench.accelerator.device)
    kinds: dict[str, tuple[dict[str, object], str]] = {
        "exact": ({}, "<= 1.25, bf16 1.30"), "exact, every 4 steps": ({"every": 4}, "<= 1.08"),
        "exact, half a batch held out": ({"held_out": half.at}, ""),
        "onesided": ({"estimator": "onesided"}, ""), "central": ({"estimator": "central"}, ""),
        "forward": ({"estimator": "forward"}, ""),
        "the paper's recipe (central, tentative step first)": ({"estimator": "central", "order": "paper"}, "")}
    trainers = {name: bench.search(fresh(), **options) for name, (options, _) in kinds.items()}

    def steps(trainer: Trainer, count: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                trainer._step(bench.batch)
        return run

    alone = bench.trainer(none(network("wrn_16_2"), bench.setting))

    def look() -> None:
        student = alone.method.student()
        with torch.no_grad(), alone.autocast():
            student.module(student.normalise(bench.batch.images))

    counts = {name: int(options.get("every", 1)) for name, (options, _) in kinds.items()}
    seconds = bench.time({"plain": steps(plain, 1), "alone": steps(alone, 1), "look": look,
                          **{n: steps(t, counts[n]) for n, t in trainers.items()}}, rounds)
    rows = [(f"search step, {name} / distillation step", ratio(seconds, name, "plain") / counts[name], goal)
            for name, (_, goal) in kinds.items()]
    return [*rows, ("search step, exact / (distillation step + a student's step + two of its forward passes)",
                    ratio(seconds, "exact", "plain", "alone", "look", "look"), "its floor: 1")]


def clipping(bench: Bench, rounds: int) -> list[tuple[str, float, str]]:
    """A replayed step with some pathways under the threshold, against one with none; the paper drops 60 % of them."""
    teacher = network("wrn_40_2")
    trainers = {}
    for share in (0.0, 0.6):
        method = distpro(network("wrn_16_2"), teacher, bench.setting)
        names = method.searchable()
        raw = torch.ones(1, len(names))
        raw[0, torch.linspace(0, len(names) - 1, round(share * len(names))).long()] = 0.0
        recorded = Recorded(names, raw, raw, "biased-softmax", float(len(names)))
        trainers[share] = bench.trainer(method.under(Replayed(method.process, recorded)))
    alone = bench.trainer(none(network("wrn_16_2"), bench.setting))

    def teach() -> None:
        with torch.no_grad(), alone.autocast():
            teacher.module(teacher.normalise(bench.batch.images))

    seconds = bench.time({"all": lambda: trainers[0.0]._step(bench.batch),
                          "clipped": lambda: trainers[0.6]._step(bench.batch),
                          "alone": lambda: alone._step(bench.batch), "teacher": teach}, rounds)
    saved = statistics.median((a - c) / (a - s - t) for a, c, s, t in zip(
        seconds["all"], seconds["clipped"], seconds["alone"], seconds["teacher"], strict=True))
    return [("step with 60 % of pathways clipped / with none", ratio(seconds, "clipped", "all"), ""),
            ("share of the pathways' own time that clipping 60 % of them saves", saved, "paper: 0.60")]


def together(bench: Bench, rounds: int) -> list[tuple[str, float, str]]:
    """An FFSD step of two students and a leader, against the bare steps of three such networks.

    Fusion, decoder and carriers are networks too (the paper's Table VII counts them): in the second ratio their own
    bare forward and backward passes, on maps that are there already, stand beside the three steps, and so do the two
    passes of carriers that are lent.
    """
    (stage,) = ffsd(replaced(network("resnet32"), lambda: build("resnet32", CLASSES)), bench.setting)
    group = bench.trainer(stage.method)
    alone = [bench.trainer(none(network("resnet32"), bench.setting)) for _ in range(3)]

    def bare() -> None:
        for trainer in alone:
            with trainer.autocast():
                images = trainer.method.student().normalise(bench.batch.images)
                loss = TASK.loss(trainer.method.student().module(images), bench.batch.targets)
            trainer.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            trainer.optimizer.step()

    method = group.method
    seen = method.see(bench.batch, group.clock)
    learning = [method.members[name] for name in ("fusion", "decoder", "carrier_student2", "carrier_leader")]
    lent = [method.members[name] for name in ("target_student2", "target_leader")]
    maps = {address: seen.detached(address).requires_grad_(address.startswith("leader."))
            for member in (*learning, *lent) for address in member.reads}

    def modules() -> None:
        known: dict[str, dict[str, torch.Tensor]] = {}
        for address, value in maps.items():
            known.setdefault(address.partition(".")[0], {})[address.partition(".")[2]] = value
        with group.autocast():
            made = [x for m in learning for x in m(method.see(bench.batch, group.clock, known=known)).values()]
            for member in lent:
                member(method.see(bench.batch, group.clock, known=known))
        torch.autograd.backward(made, [torch.ones_like(x) for x in made])

    seconds = bench.time({"ffsd": lambda: group._step(bench.batch), "bare": bare, "modules": modules}, rounds)
    return [("FFSD step / bare steps of its three networks (ResNet-32)", ratio(seconds, "ffsd", "bare"), "<= 1.10"),
            ("FFSD step / bare passes of all its networks: also fusion, decoder, two carriers and their lent passes",
             ratio(seconds, "ffsd", "bare", "modules"), "<= 1.10")]


def replaced(one: Network, factory: Callable[[], torch.nn.Module]) -> Network:
    """The network, knowing how to build more of its kind."""
    one.factory = factory
    return one


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    bench = Bench(arguments.batch, arguments.precision, arguments.device)
    parts = {distillation: 3, reading: 3, searching: 1, clipping: 1, together: 3}  # short steps take more rounds
    rows = [row for part, times in parts.items() for row in part(bench, times * arguments.rounds)]
    made = about(batch=arguments.batch, rounds=arguments.rounds, precision=arguments.precision,
                 threads=torch.get_num_threads(), on=str(bench.accelerator.device))
    text = "\n".join(["| what | measured | goal |", "|---|---|---|", *(f"| {w} | {v:.3f} | {g} |" for w, v, g in rows)])
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = f"steps-{arguments.precision}-{bench.accelerator.device.type}"
        (arguments.out / f"{name}.md").write_text(text + "\n")
        record = {"about": made, "rows": [{"what": w, "measured": v, "goal": g} for w, v, g in rows]}
        (arguments.out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
