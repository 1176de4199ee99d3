"""How long one image takes on this machine's CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck.export.formats import Answer

ROUNDS, LEAST, BUDGET = 50, 5, 30.0  # timed runs of each, at least so many, and seconds for all once that is done


@torch.inference_mode()
def latencies(answers: Mapping[str, Answer], image: Tensor) -> dict[str, float]:
    """Milliseconds for one image, by name: the median of warm runs.

    All take turns, so that what else the machine does meets all alike, and each runs once untimed just before it is
    timed: the other's threads have gone to sleep, and its own weights are in the cache.

    Args:
        answers: What is timed, by name.
        image: One in [0, 1], (1, C, H, W).
    """
    times: dict[str, list[float]] = {name: [] for name in answers}
    until = time.perf_counter() + BUDGET
    for number in range(ROUNDS + 1):
        if number > LEAST and time.perf_counter() > until:
            break
        for name, answer in answers.items():
            answer(image)
            began = time.perf_counter()
            answer(image)
            times[name] += [time.perf_counter() - began] * bool(number)  # the first round warms up
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
