"""What each method costs: parameters that train beside the student's, and the time of a whole training beside KD's.

    python benchmarks/costs.py [--only kd at] [--batch 64] [--rounds 7] [--device cpu] [--out docs/methods/costs.json]

A method's step and KD's are taken in turn, and the median of their ratios is kept, so that a machine whose speed drifts
does not matter much. Stages are added up by their lengths. Memories are those of CIFAR-100's 50,000 images. Methods for
segmentation alone are measured on PSPNets, DeiT's on a transformer, and keep a setting of their own. `limbeck cards`
puts all into the cards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from steps import CLASSES, Bench

from limbeck import wiring
from limbeck.config import MethodSettings
from limbeck.files import write_whole
from limbeck.members import STATISTICS, Network
from limbeck.method import Stage
from limbeck.methods import METHODS
from limbeck.networks import build
from limbeck.seen import Batch
from limbeck.sources import untrained
from limbeck.tasks.segmentation import Segmentation

IMAGES = 50_000
BETWEEN = "resnet32"
"""What a needed assistant is; a needed checkpoint is of the teacher's architecture."""

SCENES = ("structured", "ifvd", "cwd")
"""Methods that need a class for every pixel."""
TRANSFORMER_PAIR = ("resnet56", "timm:deit_tiny_patch16_224")
SCENE_PAIR, SCENE_SIZE, SCENE_BATCH, SCENE_CLASSES = ("pspnet_small", "pspnet_tiny"), 64, 8, 11


def network(name: str, bench: Bench) -> Network:
    """An untrained network of the zoo, which can give fresh ones, or of timm."""
    classes = len(bench.setting.classes)
    if ":" in name:
        return untrained(name, bench.batch.images.shape[-1], classes=classes)
    return Network(build(name, classes), name=name, size=tuple(bench.batch.images.shape[1:]),
                   statistics=STATISTICS["cifar100"], factory=lambda: build(name, classes))


def of_scenes(device: str | None) -> Bench:
    """A bench on images with a map of classes each; what they show does not matter."""
    bench = Bench(SCENE_BATCH, "float32", device)
    images = torch.rand(SCENE_BATCH, 3, SCENE_SIZE, SCENE_SIZE)
    maps, rows = torch.randint(SCENE_CLASSES, (SCENE_BATCH, SCENE_SIZE, SCENE_SIZE)), torch.arange(SCENE_BATCH)
    bench.task = Segmentation(SCENE_CLASSES)
    bench.batch = Batch(*(x.to(bench.accelerator.device) for x in (images, maps, rows)))
    bench.setting = replace(bench.setting, task=bench.task, classes=tuple(map(str, range(SCENE_CLASSES))), labels=None,
                            sample=bench.batch)
    return bench


def stages_of(method: str, bench: Bench, teacher: str, student: str) -> list[Stage]:
    """A method with its defaults, and one network each where it needs further ones."""
    needed = {role: [network(teacher if role == "anchors" else BETWEEN, bench)]
              for role, optional in wiring.networks_of(method).items() if not optional}
    teaching = network(teacher, bench) if wiring.needs_teacher(method) else None
    return wiring.build_stages(MethodSettings(name=method), network(student, bench), teaching, bench.setting, needed)


def measured(method: str, bench: Bench, rounds: int, teacher: str, student: str) -> dict[str, Any]:
    """Extra parameters of the largest stage, bytes of memories, stages, and the time of all in trainings by KD."""
    stages = stages_of(method, bench, teacher, student)
    kd = bench.trainer(stages_of("kd", bench, teacher, student)[0].method)
    own = sum(p.numel() for p in stages[-1].method.student().module.parameters())
    trained = max(sum(p.numel() for p in stage.method.parameters()) for stage in stages)
    kept = {id(b): b.numel() * b.element_size() for stage in stages for term in stage.method.terms.values()
            for b in term.buffers()}
    total = 0.0
    for stage in stages:
        trainer, batch = bench.trainer(stage.method), with_views(bench.batch, len(stage.method.views))
        total += stage.length * ratio(bench, partial(trainer._step, batch), partial(kd._step, bench.batch), rounds)
    return {"extra_parameters": max(0, trained - own), "memory": sum(kept.values()), "stages": len(stages),
            "time": round(total, 2)}


def ratio(bench: Bench, one: Callable[[], None], other: Callable[[], None], rounds: int) -> float:
    """Median over rounds of one step's time over another's; on a CPU the time that this process had of it."""
    clock, ratios = time.process_time if bench.accelerator.device.type == "cpu" else time.perf_counter, []
    for _ in range(rounds + 1):
        marks = [clock()]
        for step in (one, other):
            step()
            bench.wait()
            marks.append(clock())
        ratios.append((marks[1] - marks[0]) / (marks[2] - marks[1]))
    return statistics.median(ratios[1:])  # the first warms up


def with_views(batch: Batch, count: int) -> Batch:
    """A batch with so many views of its images; the images themselves do."""
    return replace(batch, views=(batch.images,) * count)


def main() -> None:
    """Measure, and put it beside what was measured before in the same setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="methods; all by default")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, default=Path("docs/methods/costs.json"))
    given = parser.parse_args()
    bench = Bench(given.batch, "float32", given.device)
    rows = torch.arange(IMAGES)
    bench.setting = replace(bench.setting, labels=torch.randint(CLASSES, (IMAGES,)), rows=rows)
    device = bench.accelerator.device
    threads = torch.get_num_threads()
    on = torch.cuda.get_device_name() if device.type == "cuda" else f"{threads} thread{'s' * (threads > 1)} of a CPU"
    setting = f"{given.teacher} → {given.student}, 32 × 32, batches of {given.batch}, float32, {on}"
    tokens = f"{' → '.join(TRANSFORMER_PAIR)}, 32 × 32, batches of {given.batch}, float32, {on}"
    scenes = f"{' → '.join(SCENE_PAIR)}, {SCENE_SIZE} × {SCENE_SIZE}, batches of {SCENE_BATCH}, float32, {on}"
    record = json.loads(given.out.read_text()) if given.out.is_file() else {}
    if record.get("setting") != setting:
        print(f"what was measured before was measured otherwise and is left out: {record.get('setting')}")
        record = {"setting": setting, "methods": {}}
    for method in given.only or METHODS:
        began = time.monotonic()
        if method in SCENES:
            own = measured(method, of_scenes(given.device), given.rounds, *SCENE_PAIR)
            record["methods"][method] = {**own, "setting": scenes}
        elif method == "deit":
            own = measured(method, bench, given.rounds, *TRANSFORMER_PAIR)
            record["methods"][method] = {**own, "setting": tokens}
        else:
            record["methods"][method] = measured(method, bench, given.rounds, given.teacher, given.student)
        print(f"{method}: {record['methods'][method]}  ({time.monotonic() - began:.0f} s)", flush=True)
        record["methods"] = {name: record["methods"][name] for name in METHODS if name in record["methods"]}
        write_whole(given.out, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
