"""How much of a search's slopes is chance: of the training batch, of the held-out batch by its size, and of bf16.

    python benchmarks/slope_noise.py [--steps 40] [--draws 12] [--out FOLDER]

DistPro's 27 pathways, ResNet-20 -> ResNet-8 on digits at 32 x 32. After some steps of training the slopes of one step
are taken again and again from the same state: their mean over all training batches and all held-out images, and from
single training batches with held-out batches of several sizes. Compared are length of the difference over length, and
cosine; last in bf16 with float32, from the same two batches.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from dataclasses import replace
from pathlib import Path

import steps
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from steps import TASK, Bench, network
from torch import Tensor

from limbeck.data import Batches, Split
from limbeck.data.images import Images
from limbeck.files import write_whole
from limbeck.method import Setting
from limbeck.methods.distpro import distpro
from limbeck.seen import Batch

TRAINED = 1000  # of 1797 digits; the others are held out


def digits() -> Split:
    """The built-in digits, enlarged, in a fixed order."""
    data = load_digits()
    pixels = F.interpolate(torch.tensor(data.images / 16 * 255, dtype=torch.float32)[:, None], (32, 32))
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return Split.whole(Images(pixels.to(torch.uint8).expand(-1, 3, -1, -1)[order]), torch.tensor(data.target)[order])


class Search:
    """A search at some state, whose next step can be taken again and again with other held-out images."""

    def __init__(self, split: Split, precision: str, teacher: steps.Network):
        torch.manual_seed(0)
        rows = torch.arange(TRAINED)
        self.bench = bench = Bench(64, precision, "cpu", lr=0.02)
        bench.batches = Batches(replace(split, index=rows), 64, train=True)
        bench.batch = next(bench.batches.epoch(0))
        bench.setting = Setting(TASK, tuple("0123456789"), split.labels, rows, bench.batch)
        self.trainer = bench.search(distpro(network("resnet8"), teacher, bench.setting))

    def slopes(self, batch: Batch, held_out: Batch, state: dict | None = None) -> Tensor:
        """Slopes of the weights that a step finds."""
        trainer, found = self.trainer, []
        if state is not None:
            for part, own in state.items():
                getattr(trainer, part).load_state_dict(copy.deepcopy(own))
        process = trainer.companion.process
        of_raw = type(process).raw_slope
        process.raw_slope = lambda slope, clock: (found.append(slope.clone()), of_raw(process, slope, clock))[1]
        trainer.companion.held_out = lambda step: held_out
        trainer._step(batch)
        return found[0]

    def state(self) -> dict:
        """What a step starts from."""
        return copy.deepcopy({part: getattr(self.trainer, part).state_dict()
                              for part in ("method", "optimizer", "companion")})


def apart(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Length of the difference over the other's length, and the cosine."""
    return ((one - other).norm() / other.norm()).item(), F.cosine_similarity(one, other, dim=0).item()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    steps.CLASSES, split = 10, digits()
    everyone = Batches(split, len(split), train=False)
    (all_images,) = everyone.epoch(0)
    torch.manual_seed(0)
    teacher = network("resnet20")
    optimizer = torch.optim.SGD(teacher.module.parameters(), 0.05, 0.9)
    for chosen in torch.randint(TRAINED, (25, 64)):
        loss = F.cross_entropy(teacher.logits(all_images.images[chosen]), all_images.targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def held_out(count: int, seed: int) -> Batch:
        chance = torch.Generator().manual_seed(seed)
        rows = TRAINED + torch.randperm(len(split) - TRAINED, generator=chance)[:count]
        return Batch(all_images.images[rows], all_images.targets[rows], rows)

    search = Search(split, "float32", teacher)
    batches = list(search.bench.batches.epoch(0))
    for number in range(given.steps):
        search.slopes(batches[number % len(batches)], held_out(64, number))
    state, whole = search.state(), held_out(len(split), 0)
    mean = torch.stack([search.slopes(batch, whole, state) for batch in batches]).mean(0)
    lines = ["| a training batch of 64, and held-out images | difference / length | cosine |", "|---|---|---|"]
    for count in (len(whole), 64, 32, 16, 8):
        found = [search.slopes(batches[draw % len(batches)], held_out(count, 10 + draw), state)
                 for draw in range(given.draws)]
        means = [statistics.mean(column) for column in zip(*(apart(one, mean) for one in found), strict=True)]
        lines.append("| {} | {:.2f} | {:.2f} |".format("all" if count == len(whole) else count, *means))
    full = search.slopes(batches[3], held_out(64, 10), state)
    low = Search(split, "bf16", teacher).slopes(batches[3], held_out(64, 10), state)
    lines.append("| 64, bf16 against float32 | {:.2f} | {:.2f} |".format(*apart(low, full)))
    print("\n".join(lines))
    if given.out:
        write_whole(given.out / "slope-noise-cpu.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
