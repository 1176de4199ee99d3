"""Images without labels, or with mixed ones: what a method does with them, found in its terms and members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from limbeck.config import Job
from limbeck.data import Data
from limbeck.errors import Mistake
from limbeck.method import Method, Stage
from limbeck.sources.known import known_classes

_MEND = "Give labelled data, or choose a method that learns from the teacher alone, such as kd or reviewkd"


def with_classes(data: Data, verb: str, job: Job) -> Data:
    """The data of a job; unlabelled images have the teacher's classes, unless a labelled test split names its own.

    Raises:
        Mistake: If the job needs labels to train on and there are none, or nobody names the classes.
    """
    if data.train.labelled:
        return data
    needs = "training.select" if job.training.select else {"train": "train", "search": "a search"}.get(verb)
    if needs:
        raise Mistake(f"{needs} needs labels, and the training images of {data.name} have none: a folder of images "
                      f"without folders of classes, or a data set without a label column. Give labelled images.")
    if data.classes:
        return data
    known = known_classes(job.teacher) if job.teacher is not None else None
    if known is None:
        teacher = job.teacher.name if job.teacher is not None else "no teacher"
        raise Mistake(f"{data.name} has no labels, so that its classes are the teacher's; {teacher} does not say what "
                      f"it knows. Give a run's folder or a pretrained network as the teacher, or a labelled test "
                      f"split.")
    return replace(data, classes=tuple(names[0] for names in known))


def without_labels(name: str, stages: Sequence[Stage]) -> tuple[list[Stage], str]:
    """The stages on images without labels: supervised terms are left out, the others keep their weights.

    Args:
        name: The method's.
        stages: All of its stages.

    Returns:
        The stages, and what was left out.

    Raises:
        Mistake: If another term reads the labels, if a stage has nothing left, or if nobody knows the classes: neither
            labels nor a finished network.
    """
    dropped: dict[str, None] = {}
    left = []
    for stage in stages:
        method = stage.method
        supervised = [key for key, term in method.terms.items() if term.supervised]
        readers = [key for key in _who(method, lambda part: part.labelled) if key not in supervised]
        if readers:
            raise Mistake(f"method {name} reads labels in {', '.join(readers)}, and the training images have none. "
                          f"{_MEND}.")
        if supervised and method.companion is not None:
            raise Mistake(f"method {name} learns beside the loop by the supervised loss, and the training images have "
                          f"no labels. {_MEND}.")
        if len(supervised) == len(method.terms) or not method.frozen:
            where = f" in its stage '{stage.name}'" if len(stages) > 1 else ""
            alone = "" if method.frozen else ", as no finished network teaches"
            raise Mistake(f"method {name} learns from labels{where}{alone}, and the training images have none. "
                          f"{_MEND}.")
        left.append(replace(stage, method=method.without(supervised)) if supervised else stage)
        dropped |= dict.fromkeys(supervised)
    return left, "the training images have no labels: " + (
        f"the supervised terms {', '.join(dropped)} are left out, and the others keep their weights."
        if dropped else f"method {name} needs none.")


def check_mixed(name: str, stages: Sequence[Stage]) -> None:
    """Refuse a method on batches whose images are mixed, and whose targets are class probabilities.

    Raises:
        Mistake: If a term or member needs one class for each image, or remembers images by their place.
    """
    reasons: dict[str, Callable[[Any], bool]] = {
        "needs one class for each image": lambda part: getattr(part, "sure", part.labelled),
        "remembers each image, and a mixture of two is neither": lambda part: part.indexed}
    for reason, concerned in reasons.items():
        who = [key for stage in stages for key in _who(stage.method, concerned)]
        if who:
            raise Mistake(f"data.mixup and data.cutmix make mixtures of images, with class probabilities; method "
                          f"{name} {reason} ({', '.join(dict.fromkeys(who))}). Set both to 0, or choose another "
                          f"method.")


def _who(method: Method, concerned: Callable[[Any], bool]) -> list[str]:
    """Names of the terms and members that are concerned."""
    parts: dict[str, Any] = {**dict(method.terms.items()), **dict(method.members.items())}
    return [key for key, part in parts.items() if concerned(part)]
