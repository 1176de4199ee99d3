"""What a loss refuses, each with what it needs, what it was given and what to do."""

from __future__ import annotations

import torch
from torch import Tensor

NO_SOFTENING = "Use 1.0 for no softening."


def require_same_shape(loss: str, student: Tensor, teacher: Tensor, form: str, *dims: int) -> None:
    """Refuses tensors of different shapes, or of a number of dimensions that the loss cannot read.

    Args:
        loss: The function that asks, for the message.
        student: One side.
        teacher: The other side.
        form: The shape it can read, for the message: "(N, C)".
        dims: The numbers of dimensions it can read; none given, any will do.

    Raises:
        ValueError: If they differ, or are of another form.
    """
    if student.shape != teacher.shape or (dims and student.ndim not in dims):
        raise ValueError(
            f"{loss} needs student and teacher of one shape, {form}; got student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)}. Connect one side to the other's shape first.")


def require_same_batch(loss: str, student: Tensor, teacher: Tensor, form: str, *dims: int) -> None:
    """Refuses tensors of different batches, or of a number of dimensions that the loss cannot read.

    Args:
        loss: The function that asks, for the message.
        student: One side.
        teacher: The other side; its channels and sizes may differ from the student's.
        form: The shape it can read, for the message: "(N, C, H, W)".
        dims: The numbers of dimensions it can read; none given, any from 2 on.

    Raises:
        ValueError: If the batches differ, or either side is of another form.
    """
    read = all(x.ndim in dims if dims else x.ndim >= 2 for x in (student, teacher))
    if not read or len(student) != len(teacher):
        raise ValueError(
            f"{loss} needs student and teacher {form} of one batch; got student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)}. Give it both networks' features of the same images.")


def require_labels(loss: str, labels: Tensor, form: str, shape: tuple[int, ...]) -> None:
    """Refuses labels that are not class indices, or not those of the batch.

    Args:
        loss: The function that asks, for the message.
        labels: What was given.
        form: The shape it needs, in letters.
        shape: The shape it needs, in numbers.

    Raises:
        ValueError: If the shape or the type differs.
    """
    if tuple(labels.shape) != shape or labels.dtype != torch.int64:
        raise ValueError(
            f"{loss} needs labels {form} = {shape}, int64; got {tuple(labels.shape)}, {labels.dtype}. "
            "Give it the class index of each, not one-hot or mixed labels.")


def require_weights(loss: str, weights: Tensor, samples: int) -> None:
    """Refuses weights that are not one a sample.

    Raises:
        ValueError: If the shape is not (samples,).
    """
    if tuple(weights.shape) != (samples,):
        raise ValueError(
            f"{loss} needs one weight a sample, ({samples},); got {tuple(weights.shape)}. "
            "Give it one pair of layers at a time.")


def require_positive(name: str, value: float, advice: str) -> None:
    """Refuses a setting that is zero, negative or not a number.

    Raises:
        ValueError: If `value` is not above zero.
    """
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}. {advice}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a word that is none of the choices.

    Raises:
        ValueError: If `value` is not among them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}; got {value!r}. Choose one of these.")
