"""`limbeck cache`: every view of every training image through a job's teachers, ahead of training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from limbeck import jobs, ranks
from limbeck.cache import Remembered, Remembering, memory
from limbeck.cache.filling import Times, errors, fill, missing, timed
from limbeck.config import Job
from limbeck.data import Batches, Split
from limbeck.errors import Mistake, Stopped
from limbeck.jobs.parts import Parts
from limbeck.progress import Display, duration
from limbeck.training import engine
from limbeck.training.arithmetic import Arithmetic

_TELL_EVERY = 30.0   # seconds
_SAMPLE = 256        # views whose error is measured
_USUAL = (1.0, 4.0)  # temperatures that methods use


def fill_ahead(job: Job, *, device: str | None = None, quiet: bool = False) -> Sequence[str]:
    """Store what is not stored yet of all that `distill` will ask a job's teachers for.

    Args:
        job: As it is to be distilled; its `cache.folder` takes the outputs.
        device: `cpu`, `cuda`, `mps`; None takes the best.
        quiet: Show no progress.

    Returns:
        What there is to say: what is stored, with what error, and when it pays. Nothing on ranks beside the first.

    Raises:
        Mistake: For whatever the user can mend.
        Stopped: When asked to stop; what was computed stays.
    """
    if job.cache.folder is None:
        raise Mistake("a folder for the outputs is needed; none was given. Give --cache FOLDER.")
    jobs.check("distill", job)
    accelerator = engine.start(device, deterministic=job.training.deterministic)
    parts = Parts("distill", job, accelerator, Display(quiet=quiet or ranks.rank() != 0))
    jobs.look_at_teacher(parts)
    found = parts.remembering
    assert found is not None
    arithmetic = Arithmetic.chosen(job.training, accelerator.device)
    for stage in parts.stages:
        arithmetic.prepare(stage.method)  # as in training: rows are the same to rounding
    seconds = {name: _fill(parts, found, name) for name in found.networks}
    return list(_told(parts, found, seconds)) if ranks.rank() == 0 else []


def _fill(parts: Parts, found: Remembering, name: str) -> float:
    """Fill one network's cache; the seconds that a view took, over all ranks, 0 where nothing was missing."""
    network, job, split = found.networks[name], parts.job, parts.splits["train"]
    left = missing(network, found.repertoire, split) // ranks.world()
    ranks.wait()  # all have counted before anyone writes
    began, told = time.monotonic(), time.monotonic()
    autocast, _ = engine.autocast(job.training.precision, parts.accelerator.device)
    with engine.Interrupts() as interrupts:
        parts.display.start(f"cache {name}", 0, left)

        def tell(done: int) -> None:
            nonlocal told
            parts.display.advance(done, ranks.world())
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                rest = (told - began) / done * max(0, left - done)
                parts.display.say(f"cache {name}: {done:,} of {left:,} views  left {duration(rest)}")
            if interrupts.asked:
                network.cache.close()
                raise Stopped(f"stopped with {done:,} views more in {network.cache.folder}. Go on with the same "
                              f"command.")

        try:
            done = fill(network, found.repertoire, split, device=parts.accelerator.device, autocast=autocast, tell=tell,
                        batch_size=job.cache.batch_size or job.training.batch_size // ranks.world(),
                        workers=job.data.workers)
        finally:
            parts.display.stop()
    network.cache.close()
    ranks.wait()
    network.cache.refresh()
    return (time.monotonic() - began) / (done * ranks.world()) if done else 0.0


def _told(parts: Parts, found: Remembering, seconds: dict[str, float]) -> Iterator[str]:
    split, autocast = parts.splits["train"], engine.autocast(parts.job.training.precision, parts.accelerator.device)[0]
    batches = parts.batches("train", train=True, views=[parts.view(kind) for kind in parts.stages[0].method.views])
    for name, network in found.networks.items():
        yield (f"{name}: {found.repertoire.count} views of {len(split):,} images are stored, "
               f"{memory(network.cache.disk)} in {network.cache.folder}")
        if network.cache.row.shapes.get("logits", (1,))[0] > 1:  # depths are no distribution
            sample = islice(batches.epoch(0), max(1, _SAMPLE // batches.batch_size))
            measured = errors(network, sample, autocast, [*_USUAL, parts.job.cache.temperature])
            yield (f"{name}: KL from its distribution to what is read: " +
                   ", ".join(f"{kl:.2g} nats at temperature {t:g}" for t, kl in measured.items()))
    method = parts.stages[0].method.train()
    if any(isinstance(one, Remembered) for one in method.frozen.values()):
        yield _worth(timed(method, batches, autocast), batches, split, found, seconds)


def _worth(times: Times, batches: Batches, split: Split, found: Remembering, seconds: dict[str, float]) -> str:
    """When filling pays: its time over the time that an epoch then saves."""
    said = (f"a step takes {1000 * times.live:.3g} ms with teachers live and {1000 * times.stored:.3g} ms reading "
            f"({times.live / times.stored:.2f} times as fast)")
    saved = (times.live - times.stored) * len(batches)
    spent = sum(seconds.values()) * len(split) * found.repertoire.count
    if not spent:
        return f"{said}; nothing had to be computed"
    if saved <= 0:
        return f"{said}; filling does not pay here"
    return f"{said}; filling all takes {duration(spent)}, which pays after {spent / saved:.3g} epochs"
