"""How maps of different sizes are brought to one size, vectors to one length, and how far two tensors are apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import require_same_batch


def average_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Means over the cells of a grid laid on each map, as `adaptive_avg_pool2d` takes them.

    The gradient of that function is not deterministic on a GPU; this one's is.

    Args:
        x: Maps, (N, C, H, W). Gradients flow here.
        size: Rows and columns of the grid; cells overlap where they do not divide H and W.

    Returns:
        Maps, (N, C, *size).
    """
    height, width = x.shape[-2:]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(x, (height // size[0], width // size[1]))
    return _cells(height, size[0], x) @ x @ _cells(width, size[1], x).mT


def _cells(old: int, new: int, like: Tensor) -> Tensor:
    """What each of the new places takes of the old ones, (new, old): a share of those from floor to ceiling."""
    place, cell = torch.arange(old, device=like.device), torch.arange(new, device=like.device)[:, None]
    inside = (place >= cell * old // new) & (place < -(-(cell + 1) * old // new))
    return inside.to(like.dtype) / inside.sum(dim=1, keepdim=True)


def to_smaller(loss: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two networks' maps, the larger averaged down to the smaller, as RepDistiller and mdistiller do.

    Args:
        loss: The function that asks, for the message.
        student: Maps, (N, C_S, H_S, W_S). Gradients flow here.
        teacher: Maps, (N, C_T, H_T, W_T). Gradients flow here.

    Returns:
        Both at (min(H_S, H_T), min(W_S, W_T)).

    Raises:
        ValueError: If either is no map, or the batches differ.
    """
    require_same_batch(loss, student, teacher, "(N, C, H, W)", 4)
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return average_pool(student, size), average_pool(teacher, size)


def unit(x: Tensor, dim: int | tuple[int, ...], *, eps: float = 1e-12) -> Tensor:
    """Vectors at length 1 in the 2-norm; one shorter than `eps` has no direction: it becomes zero and gets no gradient.

    `F.normalize` gives the same values, but passes 1 / eps times the gradient to a zero vector: enough to end a run.

    Args:
        x: Any shape. Gradients flow here.
        dim: What makes up a vector.
        eps: The length below which a vector counts as zero.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x * torch.where(length > eps, 1 / length.clamp_min(eps), 0.0)  # the choice among lengths, not among entries


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of (s - t)^2 over all entries.

    `F.mse_loss` gives the same, but its gradient always lies row by row: behind a convolution on maps whose channels
    are innermost, everything that the gradient meets would then run through memory in two orders at once.

    Args:
        student: Any shape. Gradients flow here, in the order in memory that the student has.
        teacher: The same shape. Gradients flow here too.

    Returns:
        Scalar.
    """
    if student.ndim == 4 and student.is_contiguous(memory_format=torch.channels_last):
        student, teacher = student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1)
    return F.mse_loss(student, teacher)


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps or masks at another size, each entry taken from its place: floor(i · H / rows).

    Args:
        labels: (N, H, W), of any type.
        size: Rows and columns wanted.

    Returns:
        (N, *size).
    """
    rows, columns = (torch.arange(new, device=labels.device) * old // new
                     for new, old in zip(size, labels.shape[1:], strict=True))
    return labels[:, rows[:, None], columns]
