"""Everything that a job trains with, assembled from its settings, each piece built when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from accelerate import Accelerator

from limbeck import pairing, ranks, wiring
from limbeck.cache import Remembering, remember
from limbeck.config import Job
from limbeck.data import (
    AnyChange,
    Augmentation,
    Batches,
    Change,
    Data,
    Joint,
    Mixing,
    Split,
    Strong,
    Views,
    hold_out,
    open_data,
)
from limbeck.errors import Mistake, nearest
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.progress import Display
from limbeck.runs import about
from limbeck.seen import Batch
from limbeck.sources import describe, open_network
from limbeck.tasks import Task
from limbeck.tasks.agreement import Agreement
from limbeck.tasks.classification import Classification
from limbeck.training import engine, labels
from limbeck.training.arithmetic import Arithmetic
from limbeck.training.compiling import Compiling
from limbeck.training.teachers import first_choices

Verb = Literal["train", "search", "distill"]


@dataclass
class Parts:
    """Everything that a job trains with, each built when first asked for.

    Attributes:
        verb: What is done.
        job: Its settings.
        accelerator: Device and processes.
        display: What a person sees.
    """

    verb: Verb
    job: Job
    accelerator: Accelerator
    display: Display

    @cached_property
    def data(self) -> Data:
        data = open_data(self.job.data)
        for note in data.notes:
            self.display.say(note)
        return labels.with_classes(data, self.verb, self.job)

    @property
    def task(self) -> Task:
        """The data's; images with one class each may be scored by a teacher, and have smoothed labels."""
        if self.data.task.name != "classification":
            if self.job.training.label_smoothing:
                raise Mistake(f"training.label_smoothing is for images with one class each; {self.data.name} is made "
                              f"for {self.data.task.name}. Leave it out.")
            return self.data.task
        kind = Classification if self.data.test.labelled else Agreement
        return kind(self.job.training.label_smoothing)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """`train`, `test`; `held_out` of a search and `select` where asked for, both cut from the training data.

        Where nothing is labelled, the test images' targets are the teacher's first choices.
        """
        cut = {"train": self.data.train, "test": self.data.test}
        if not cut["test"].labelled and self.teacher is not None:
            device = self.accelerator.device
            plain = Batches(cut["test"], 256, train=False, device=device, workers=self.job.data.workers)
            cut["test"] = first_choices(self.teacher.to(device), plain)
            self.display.say("the test images have no labels: scored is how often the student's first choice is the "
                             "teacher's (agreement).")
        if self.job.training.select:
            cut["train"], cut["select"] = hold_out(cut["train"], self.job.training.select, self.job.seed)
        if self.verb == "search":
            cut["train"], cut["held_out"] = hold_out(cut["train"], self.job.search.held_out, self.job.seed + 1)
        return cut

    @cached_property
    def student(self) -> Network:
        torch.manual_seed(self.job.seed)
        return open_network(self.job.student, self.data, say=self.display.say)

    @cached_property
    def teacher(self) -> Network | None:
        if self.job.teacher is None or self.verb == "train":
            return None
        _ = self.student  # always drawn first, so that an untrained teacher is the same in every verb
        return open_network(self.job.teacher, self.data, finished=True, features=True, say=self.display.say)

    @cached_property
    def further(self) -> dict[str, list[Network]]:
        """Networks beside student and teacher: assistants, peers."""
        return {role: [open_network(one, self.data) for one in several] for role, several in self.job.networks.items()}

    @cached_property
    def stages(self) -> list[Stage]:
        """What the method trains, one after the other; most have one stage."""
        split = self.splits["train"]
        setting = Setting(self.task, self.data.classes, split.targets, split.index, self._sample, self.job.seed,
                          self.job.training.batch_size // ranks.world(), self._hold_out)
        student, teacher, further = self.student, self.teacher, self.further
        torch.manual_seed(self.job.seed + 1)
        stages = wiring.build_stages(self.job.method, student, teacher, setting, further)
        self._check_answers(stages)
        if not split.labelled:
            stages, note = labels.without_labels(self.job.method.name, stages)
            self.display.say(note)
        if self.mixing is not None:
            labels.check_mixed(self.job.method.name, stages)
        reads = [read for stage in stages for read in stage.method.reads()]
        if teacher is not None and any(read.startswith("teacher.stage") for read in reads):
            for line in pairing.unlike(student, teacher):
                self.display.say(line)
        for frozen in (f for stage in stages for f in stage.method.frozen.values()):
            frozen.batch_statistics |= self.job.training.teacher_batch_statistics
            frozen.train()
        return stages

    def _check_answers(self, stages: Sequence[Stage]) -> None:
        """A teacher of other classes than the data's may teach by its features, and not by its logits."""
        if self.teacher is None or self.teacher.unmatched is None:
            return
        reads = {(name, address) for stage in stages for name, frozen in stage.method.frozen.items()
                 if frozen.network is self.teacher for address in stage.method.reads()}
        if any(address == f"{name}.logits" for name, address in reads):
            raise Mistake(self.teacher.unmatched)
        if reads:
            self.display.say(f"{self.teacher.name} knows other classes than the data; method {self.job.method.name} "
                             f"learns from its features alone.")

    @property
    def _sample(self) -> Batch:
        """A few training images, plain, but of the size that is trained on."""
        batches, own = self.batches("train", train=False), self.data.augmentation
        if isinstance(own, Joint):
            batches = Batches(batches.split, batches.batch_size, train=True, augmentation=Joint(own.crop, wander=False),
                              device=batches.device, workers=batches.workers)
        return next(batches.epoch(0))

    @property
    def mixing(self) -> Mixing | None:
        """What mixes training batches, where that is asked for."""
        data = self.job.data
        if not (data.mixup or data.cutmix):
            return None
        return Mixing(len(self.data.classes), data.mixup, data.cutmix, data.mix_probability, data.mix_switch,
                      self.job.seed, ranks.rank())

    @cached_property
    def remembering(self) -> Remembering | None:
        """Frozen networks whose outputs are stored, in their places in the stages; None where nothing is to be."""
        if self.job.cache.folder is None:
            return None
        about = {"data": self.data.fingerprint, "computed": self.precision}
        found = remember(self.stages, self.job.cache, self.splits["train"], self.data.augmentation, about)
        for line in found.told():
            self.display.say(line)
        return found

    @property
    def precision(self) -> str:
        """What members are computed in: float32 or bf16."""
        precise = engine.autocast(self.job.training.precision, self.accelerator.device)[1]
        return "float32" if precise else "bf16"

    def _hold_out(self, part: float) -> Batches:
        """What a method holds out for itself; the training split no longer has it."""
        self.splits["train"], self.splits["own"] = hold_out(self.splits["train"], part, self.job.seed + 2)
        self.display.say(f"method {self.job.method.name} holds out {len(self.splits['own'])} of the training images.")
        return self.batches("own", train=False)

    @property
    def method(self) -> Method:
        """The method of a job that has one stage.

        Raises:
            Mistake: If it has several.
        """
        if len(self.stages) > 1:
            raise Mistake(f"a searched process belongs to one stage; method {self.job.method.name} trains "
                          f"{[stage.name for stage in self.stages]} one after the other. Choose its joint form.")
        return self.stages[0].method

    def stage(self, method: Method) -> Stage:
        """The method of a job that has one stage, under another process; what its members step by stays."""
        return Stage(method, name=self.verb, optimizers=self.stages[0].optimizers)

    def view(self, kind: str) -> Change:
        """An augmentation that a method asks for beside the images' own."""
        own = self.data.augmentation
        assert not isinstance(own, Joint), "methods with views are refused where targets are maps"
        kinds: dict[str, Change] = {"same": own, "strong": Strong(own), "plain": Augmentation()}
        if kind not in kinds:
            raise Mistake(f"there is no kind of view '{kind}'; {nearest(kind, kinds)}")
        return kinds[kind]

    def batches(self, split: str, *, train: bool, size: int | None = None, augment: bool = True,
                views: Sequence[Change] = (), mixing: Mixing | None = None) -> Batches:
        """This rank's batches of a split."""
        world = ranks.world()
        whole = size or self.job.training.batch_size
        if whole % world:
            raise Mistake(f"training.batch_size counts the images of all processes together; {whole} cannot be shared "
                          f"by {world}. Give a multiple of {world}.")
        own = self.data.augmentation if augment else None
        augmentation: AnyChange | None = own
        if views:
            assert not isinstance(own, Joint), "methods with views are refused where targets are maps"
            augmentation = Views((own or Augmentation(), *views))
        counted = self.remembering if train and split == "train" else None
        return Batches(self.splits[split], whole // world, train=train, seed=self.job.seed, augmentation=augmentation,
                       device=self.accelerator.device, rank=ranks.rank(), world=world, workers=self.job.data.workers,
                       mixing=mixing, repertoire=counted.repertoire if counted else None)

    def about(self) -> dict[str, Any]:
        """What the record says of this job's making."""
        data = {"name": self.data.name, "task": self.task.name, "fingerprint": self.data.fingerprint,
                "classes": len(self.data.classes),
                **{name: len(split) for name, split in self.splits.items()}, "skipped": self.data.skipped}
        networks = {name: describe(network, (), self.task) for name, network in
                    (("student", self.student), ("teacher", self.teacher)) if network is not None}
        return about(data=data, networks=networks, seed=self.job.seed, processes=ranks.world(),
                     **Arithmetic.chosen(self.job.training, self.accelerator.device).record(),
                     **Compiling.chosen(self.job.training, self.accelerator.device).record())
