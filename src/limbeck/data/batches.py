"""A split in batches: order and augmentation are functions of seed, epoch and place, on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from limbeck.data.augment import Augmentation
from limbeck.data.chance import generator
from limbeck.data.images import AnyChange, Split
from limbeck.data.mixing import Mixing
from limbeck.data.repertoire import Repertoire
from limbeck.errors import Mistake
from limbeck.seen import Batch


class Batches:
    """One rank's share of a split, epoch by epoch.

    The order of an epoch, and the random numbers of every place in it, are drawn from (seed, epoch), for all ranks
    alike. A step's global batch is the next `world * batch_size` places; rank r takes every `world`-th of them from the
    r-th on. So the ranks together see, image by image, what one process with the larger batch sees; and any step of any
    epoch can be had without those before it.

    In training the last, smaller batch is kept, unless it has not an image for each rank: then it is dropped, as every
    rank needs the same number of steps. In evaluation each image is seen once, plain, in order; ranks may differ in
    their number of images and steps.

    Args:
        split: The images.
        batch_size: Images of this rank in a step.
        train: Shuffle and augment; or else evaluate.
        augmentation: How training images are changed; `Views` gives each batch further views, `Joint` changes maps
            with them.
        seed: Of order and augmentation.
        device: Where batches are wanted.
        rank: Which rank this is.
        world: How many ranks there are.
        workers: Processes that decode images which are not held in memory.
        mixing: Mixes the images of each training batch of an epoch, and makes their targets class probabilities.
        repertoire: Counts the views of an image, and may keep training to some of them; None leaves them uncounted.

    Raises:
        Mistake: If the batch size is not positive, or a rank would have nothing to train on.
    """

    def __init__(self, split: Split, batch_size: int, *, train: bool, augmentation: AnyChange | None = None,
                 seed: int = 0, device: torch.device | str = "cpu", rank: int = 0, world: int = 1, workers: int = 2,
                 mixing: Mixing | None = None, repertoire: Repertoire | None = None):
        if batch_size < 1:
            raise Mistake(f"a batch needs an image at least; got a batch size of {batch_size}. Set it to 1 or more")
        if train and len(split) < world:
            raise Mistake(f"every rank needs an image to train on; got {len(split)} images for {world} ranks. "
                          "Start fewer ranks, or give more images")
        self.split = split
        self.batch_size = batch_size
        self.train = train
        self.augmentation: AnyChange = augmentation if train and augmentation else Augmentation()
        self.seed = seed
        self.device = torch.device(device)
        self.rank = rank
        self.world = world
        self.workers = workers
        self.mixing = mixing if train else None
        self.repertoire = repertoire
        self._targets = None if split.targets is None else split.targets.to(self.device)
        rest = len(split) % (batch_size * world)
        self._used = len(split) - rest if train and rest < world else len(split)
        self._pass: tuple[int, Tensor, Tensor, Tensor | None] | None = None  # the pass that `at` was last asked for

    def __len__(self) -> int:
        """This rank's steps in an epoch."""
        return math.ceil(len(range(self.rank, self._used, self.world)) / self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        Args:
            epoch: Which; it matters in training only.
            start: The step of the epoch to begin with; those before it are not computed.
        """
        rows, draws, ids = self._order("epoch", epoch)
        done = slice(start * self.batch_size, None)
        for step, batch in enumerate(self._load(rows[done], draws[done], None if ids is None else ids[done]), start):
            yield batch if self.mixing is None else self.mixing(batch, epoch, step)

    def at(self, step: int) -> Batch:
        """One batch of an endless random stream, which is none of the epochs'; for the search's held-out images.

        It passes through the split again and again in new orders, leaving out each time what fills no batch.

        Args:
            step: Which batch; the same for the same step and seed.
        """
        whole = max(1, self._used // (self.batch_size * self.world))
        again, place = divmod(step, whole)
        if self._pass is None or self._pass[0] != again:
            self._pass = again, *self._order("stream", again)
        _, rows, draws, ids = self._pass
        part = slice(place * self.batch_size, (place + 1) * self.batch_size)
        return next(self._load(rows[part], draws[part], None if ids is None else ids[part], workers=0))

    def _order(self, purpose: str, epoch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """This rank's rows of the store in order, (N,), their random numbers, (N, K), and `Batch.view_ids`, (N,)."""
        chance = generator(purpose, self.seed, epoch)
        n = len(self.split)
        order = torch.randperm(n, generator=chance) if self.train else torch.arange(n)
        draws = self.augmentation.draw(n, chance)
        mine = slice(self.rank, self._used, self.world)
        rows, draws = self.split.index[order[mine]], draws[mine]
        return (rows, draws, None) if self.repertoire is None else (
            rows, *self.repertoire.choose(rows, draws, self.seed, epoch))

    def _load(self, rows: Tensor, draws: Tensor, ids: Tensor | None, workers: int | None = None) -> Iterator[Batch]:
        if not len(rows):
            return  # an epoch that had ended; an empty tensor would be split into one empty batch
        store, workers = self.split.store, self.workers if workers is None else workers
        loaded = store.batches(rows, draws, self.batch_size, self.augmentation, self.device, workers)
        numbers = repeat(None) if ids is None else ids.split(self.batch_size)
        for (images, index, maps), own in zip(loaded, numbers, strict=False):
            images, *views = images.unbind(1) if images.ndim == 5 else (images,)
            targets = maps if self._targets is None else self._targets[index]
            yield Batch(images, targets, index, tuple(views), own)
