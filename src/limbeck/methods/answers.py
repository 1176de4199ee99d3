"""What networks answer, as methods compare it: one learner's pulled to another's, whatever the task.

Classes are answered with beliefs, which a divergence compares; depth with metres, and a source's are then taken as if
they had been measured. Where a task answers with maps, every pixel that counts is a sample.
"""

from __future__ import annotations

from functools import partial

from limbeck.errors import Mistake
from limbeck.losses import absolute, soft_kl
from limbeck.tasks import Task
from limbeck.terms import Distance, Match


def towards(task: Task, member: str, source: str, *, temperature: float, detach: bool = True,
            everywhere: bool = False) -> Match:
    """T^2 KL(source || member) of softened logits, a mean over samples; of depths their mean absolute difference.

    Args:
        task: What they answer.
        member: Who is pulled.
        source: Towards whom.
        temperature: T; of no meaning to depths.
        detach: Whether the source feels nothing, or is pulled as well.
        everywhere: Of maps, let pixels count that do not count in the task.
    """
    distance: Distance = absolute if task.name == "depth" else partial(soft_kl, temperature=temperature)
    return Match(f"{member}.logits", f"{source}.logits", distance, detach=detach, task=task, everywhere=everywhere)


def beliefs(method: str, task: Task) -> None:
    """Refuse a task whose answers are no beliefs over classes.

    Raises:
        Mistake: For depth.
    """
    if task.name == "depth":
        raise Mistake(f"{method} compares beliefs over classes; depth answers metres, a single number a pixel. Choose "
                      f"kd, which takes the teacher's metres as if they were measured, or a method that compares "
                      f"features.")


def whole_images(method: str, task: Task, why: str) -> None:
    """Refuse a task that answers pixel by pixel.

    Args:
        method: Who asks.
        task: The job's.
        why: What it has of an image alone.

    Raises:
        Mistake: For segmentation and depth.
    """
    if task.name != "classification":
        raise Mistake(f"{method} needs one answer an image, as {why}; {task.name} answers pixel by pixel. Choose kd, "
                      f"or a method that compares maps, as reviewkd or distpro.")


def scenes(method: str, task: Task, why: str) -> None:
    """Refuse a task that does not answer with a class for every pixel.

    Args:
        method: Who asks.
        task: The job's.
        why: What it has of every pixel.

    Raises:
        Mistake: For all tasks but segmentation.
    """
    if task.name != "segmentation":
        raise Mistake(f"{method} needs a class for every pixel, as {why}; this job's task is {task.name}. Choose "
                      f"another method, as kd, reviewkd or distpro.")
