"""How soon limbeck answers: `limbeck --help`, and the first step of a KD run, everything from the command on.

    python benchmarks/start.py --data hf:../shared/data/tiny-imagenet-100 --teacher RUN [--student resnet8x4]
        [--tries 3] [--set data.size=32 ...] [--out FOLDER]

The run is on a CPU and not compiled, and ends with its first step. It runs once before the tries that count: decoded
images and the teacher's score are kept then; that first time is told too. Prints medians, and writes JSON where --out
says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from limbeck.runs import about

FIRST = """
import os
from limbeck.cli import main
from limbeck.training.trainer import Trainer

step = Trainer._step

def first(trainer, batch):
    step(trainer, batch)
    os._exit(0)

Trainer._step = first
main()
"""


def seconds(words: list[str]) -> float:
    """Of a process, from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_step(given: argparse.Namespace) -> float:
    """Of a run until its first step is done."""
    with tempfile.TemporaryDirectory() as folder:
        named = {"run": f"{folder}/run", "data": given.data, "teacher": given.teacher, "student": given.student,
                 "method": "kd", "device": "cpu"}
        words = [word for name, value in named.items() for word in (f"--{name}", value)]
        return seconds(["-c", FIRST, "distill", *words, *(word for text in given.set for word in ("--set", text))])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--teacher"):
        parser.add_argument(name, required=True)
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LIMBECK_CACHE"] = cache
        found = {"help": statistics.median(seconds(["-m", "limbeck", "--help"]) for _ in range(given.tries)),
                 "first step, the first time": first_step(given),
                 "first step": statistics.median(first_step(given) for _ in range(given.tries))}
    for what, value in found.items():
        print(f"{what}: {value:.2f} s")
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        record = {"about": about(tries=given.tries, threads=torch.get_num_threads()), "seconds": found}
        (given.out / "start-cpu.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
