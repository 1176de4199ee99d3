"""What a distance between answers takes for a sample: an image, or a pixel that counts where a task answers with maps.

So every distance of logits (N, C), with its labels (N,), serves on maps (N, C, h, w) too, and what does not count in
the task does not count in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.tasks import Task
from limbeck.tasks.maps import at_size, same_places


def samples(task: Task, student: Tensor, source: Tensor, targets: Tensor | None, *,
            everywhere: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both sides' answers and the targets, a row for each sample.

    Args:
        task: What is answered.
        student: (N, C), or maps (N, C, h, w), which are brought bilinearly to the source's size. Gradients flow here.
        source: (N, C), or maps (N, C, h', w').
        targets: (N,), or maps (N, H, W), of which each place takes the nearest; None where there are none: then every
            pixel counts.
        everywhere: Let every pixel count.

    Returns:
        Two tensors (P, C) and the targets (P,), P the number of images, or of pixels that count; P can be 0.
    """
    if source.ndim != 4:
        return student, source, targets
    student = at_size(student, source.shape[2:])
    counts = torch.ones_like(source[:, 0], dtype=torch.bool)  # (N, h, w)
    if targets is not None:
        valid = None if everywhere else task.valid(targets)
        counts = counts if valid is None else same_places(valid, source.shape[2:])
        targets = same_places(targets, source.shape[2:])[counts]
    return student.movedim(1, 3)[counts], source.movedim(1, 3)[counts], targets
