"""What each method costs: parameters that train beside the student's, and the time of a whole training beside KD's.

    python benchmarks/costs.py [--only kd at] [--batch 64] [--rounds 3] [--device cpu] [--out docs/methods/costs.json]

A method's step and KD's are taken in turn; the ratio is the median over rounds of the ratio within a round, so that a
machine whose speed drifts does not matter. Stages are added up by their lengths. `limbeck cards` puts the file into cards.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from steps import CLASSES, Bench, ratio

from limbeck import wiring
from limbeck.config import MethodSettings
from limbeck.members import STATISTICS, Network
from limbeck.method import Stage
from limbeck.methods import METHODS
from limbeck.networks import build
from limbeck.trainer import Trainer

BETWEEN = "resnet14"
"""What further networks are: assistants, peers; checkpoints of a teacher are of its own architecture."""


def network(name: str) -> Network:
    """An untrained network of the zoo, which can give fresh ones."""
    return Network(build(name, CLASSES), name=name, size=(3, 32, 32), statistics=STATISTICS["cifar100"],
                   factory=lambda: build(name, CLASSES))


def stages_of(method: str, bench: Bench, teacher: str, student: str) -> list[Stage]:
    """A method with its defaults, and one network each where it needs further ones."""
    needed = {role: [network(teacher if role == "anchors" else BETWEEN)]
              for role, optional in wiring.networks_of(method).items() if not optional}
    teaching = network(teacher) if wiring.needs_teacher(method) else None
    return wiring.build_stages(MethodSettings(name=method), network(student), teaching, bench.setting, needed)


def prepared(bench: Bench, stage: Stage) -> Trainer:
    """The real loop, ready to step this stage."""
    trainer = bench.trainer(stage.method)
    trainer.batches.epoch(0)
    return trainer


def measured(method: str, bench: Bench, rounds: int, teacher: str, student: str) -> dict[str, Any]:
    """Extra parameters, bytes of memories, stages, and the time of all stages in trainings by KD."""
    stages = stages_of(method, bench, teacher, student)
    kd = bench.trainer(stages_of("kd", bench, teacher, student)[0].method)
    own = sum(p.numel() for p in stages[-1].method.student().module.parameters())
    trained = {id(p): p.numel() for stage in stages for p in stage.method.parameters()}
    kept = {id(b): b.numel() * b.element_size() for stage in stages for term in stage.method.terms.values()
            for b in term.buffers()}
    total = 0.0
    for stage in stages:
        trainer = bench.trainer(stage.method)
        batch = views(bench, stage)
        seconds = bench.time({"kd": lambda: kd._step(bench.batch), method: lambda t=trainer, b=batch: t._step(b)}, rounds)
        total += stage.length * ratio(seconds, method, "kd")
    return {"extra_parameters": sum(trained.values()) - own, "memory": sum(kept.values()), "stages": len(stages),
            "time": round(total, 2)}


def views(bench: Bench, stage: Stage) -> Any:
    """The batch, with as many views as the stage's method looks at."""
    return typing.cast(Any, type(bench.batch))(bench.batch.images, bench.batch.targets, bench.batch.index,
                                               (bench.batch.images,) * len(stage.method.views))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and put it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="methods; all by default")
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path, default=Path("docs/methods/costs.json"))
    given = parser.parse_args(words)
    bench = Bench(given.batch, "float32", given.device)
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else f"one thread of {platform.machine()}"
    before = json.loads(given.out.read_text())["methods"] if given.out.is_file() else {}
    for method in given.only or METHODS:
        began = time.monotonic()
        before[method] = measured(method, bench, given.rounds, given.teacher, given.student)
        print(f"{method}: {before[method]}  ({time.monotonic() - began:.0f} s)", flush=True)
        record = {"setting": f"{given.teacher} → {given.student}, 32 × 32, batches of {given.batch}, float32, {on}",
                  "methods": {name: before[name] for name in METHODS if name in before}}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
