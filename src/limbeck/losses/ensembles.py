"""What several networks teach together: targets made of their logits (KDCL), and their whole spread (EnD²)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import NO_SOFTENING, require_labels, require_positive


def naive_target(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """For each sample the logits of the network that is nearest to the label (KDCL-Naive).

        target_n = z^k_n,   k = argmin_m - log softmax(z^m_n)_y

    Args:
        logits: One tensor a network, (N, C) each. Gradients would flow into those chosen: detach the target.
        labels: True classes, (N,), int64 in [0, C).

    Returns:
        Logits, (N, C).

    Raises:
        ValueError: If there is no network, or the shapes disagree.

    Source: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.
    """
    z = _stacked("naive_target", logits, labels)
    ce = F.cross_entropy(z.flatten(0, 1), labels.repeat(len(z)), reduction="none").view(z.shape[:2])  # (M, N)
    return z[ce.argmin(dim=0), torch.arange(len(labels), device=z.device)]


def minlogit_target(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """For each class the least that any network has it above the label (KDCL-MinLogit).

        target_nc = min_m (z^m_nc - z^m_ny)
    so that it is 0 at the label, and its cross-entropy is never above the best network's.

    Args:
        logits: One tensor a network, (N, C) each. Gradients would flow into those chosen: detach the target.
        labels: True classes, (N,), int64 in [0, C).

    Returns:
        Logits, (N, C).

    Raises:
        ValueError: If there is no network, or the shapes disagree.

    Source: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020.
    """
    z = _stacked("minlogit_target", logits, labels)
    answer = labels[None, :, None].expand(len(z), -1, 1)
    return (z - z.gather(2, answer)).amin(dim=0)


def linear_target(logits: Sequence[Tensor], labels: Tensor, *, steps: int = 10, rate: float = 0.5) -> Tensor:
    """The mixture of the networks' logits with the lowest cross-entropy over the batch (KDCL-Linear).

        target = sum_m a_m z^m,   a = argmin mean_n - log softmax(sum_m a_m z^m_n)_y   over a >= 0, sum_m a_m = 1

    Args:
        logits: One tensor a network, (N, C) each. Gradients would flow here, but none through a: detach the target.
        labels: True classes, (N,), int64 in [0, C).
        steps: How many steps of Adam look for a, which starts with equal parts.
        rate: Their length, in the logarithm of a.

    Returns:
        Logits, (N, C).

    Raises:
        ValueError: If there is no network, the shapes disagree, or a setting is not positive.

    Source: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020. How the authors find a, and
    whether for a sample or a batch, is not known to us; one softmax of m numbers for the batch is our choice.
    """
    require_positive("steps", steps, "Use 10, which come close to the least.")
    require_positive("rate", rate, "Use 0.5.")
    z = _stacked("linear_target", logits, labels)
    constant = z.detach()
    with torch.enable_grad():
        raw = torch.zeros(len(z), dtype=z.dtype, device=z.device, requires_grad=True)
        optimiser = torch.optim.Adam([raw], lr=rate)
        for _ in range(steps):
            mixed = torch.einsum("m,mnc->nc", raw.softmax(0), constant)
            (raw.grad,) = torch.autograd.grad(F.cross_entropy(mixed, labels), [raw])
            optimiser.step()
    return torch.einsum("m,mnc->nc", raw.detach().softmax(0), z)


def general_weights(logits: Sequence[Tensor], labels: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How much of each network the mixture with the smallest error on these samples holds (KDCL-General).

    With p^m = softmax(z^m / T), y one-hot and C_ij = mean_n <p^i_n - y_n, p^j_n - y_n>,
        w = C^-1 1 / (1^T C^-1 1),   then what is negative put to 0 and the rest divided by its sum.

    Args:
        logits: One tensor a network, (N, C) each, on held-out data. Constants: no gradient flows.
        labels: True classes, (N,), int64 in [0, C).
        temperature: T > 0, in units of logits; the one at which the probabilities will be mixed.

    Returns:
        Weights of probabilities, not of logits, (M,): not negative, their sum 1.

    Raises:
        ValueError: If there is no network, the shapes disagree or the temperature is not positive.

    Source: Guo et al., Online Knowledge Distillation via Collaborative Learning, CVPR 2020. 1e-6 is added to C's
    diagonal, for networks that are alike; that, the temperature and the cut at 0 are our choice.
    """
    require_positive("temperature", temperature, NO_SOFTENING)
    z = _stacked("general_weights", logits, labels).detach()
    errors = F.softmax(z / temperature, dim=2) - F.one_hot(labels, z.shape[2])
    errors = errors.flatten(1)  # (M, NC)
    covariance = errors @ errors.mT / len(labels)
    eye = torch.eye(len(z), dtype=z.dtype, device=z.device)
    weights = torch.linalg.solve(covariance + 1e-6 * eye, torch.ones_like(eye[0])).clamp_min(0)
    return weights / weights.sum()


def dirichlet_nll(student: Tensor, members: Tensor, *, temperature: float = 1.0, smoothing: float = 1e-3) -> Tensor:
    """How badly a student's Dirichlet distribution predicts the beliefs of an ensemble's members (EnD²).

    With concentrations a_c = exp(z_c / T), a_0 their sum, and members' beliefs π = softmax(z / T) drawn to the uniform,
    (1 - ε)(π - 1/C) + 1/C,
        loss = T^2 mean_n [sum_c lnΓ(a_c) - lnΓ(a_0) - sum_c (a_c - 1) mean_m ln π_mc],
    1e-8 being added to what lnΓ and ln take.

    Args:
        student: Logits, (N, C). Gradients flow here.
        members: Logits of the M members of the ensemble, (N, M, C). Gradients would flow here too.
        temperature: T > 0, in units of logits, for both sides.
        smoothing: ε in [0, 1).

    Returns:
        Scalar, in nats, averaged over the batch: the negative log-likelihood of a density, so that it can be negative.
        Computed in float64, given in the student's type.

    Raises:
        ValueError: If the shapes disagree, or a setting is out of range.

    Source: Malinin et al., Ensemble Distribution Distillation, ICLR 2020, arXiv:1905.00076; constants as in a public
    reproduction. Concentrations above e^60 would leave float32's range: they are held there, with the slope they have
    there, so that the student can come back.
    """
    if student.ndim != 2 or members.ndim != 3 or (len(members), members.shape[2]) != tuple(student.shape):
        raise ValueError(
            f"dirichlet_nll needs student logits (N, C) and members' logits (N, M, C); got {tuple(student.shape)} and "
            f"{tuple(members.shape)}. Stack the members' logits along dimension 1.")
    require_positive("temperature", temperature, NO_SOFTENING)
    if not 0 <= smoothing < 1:
        raise ValueError(f"dirichlet_nll needs smoothing in [0, 1); got {smoothing}. Use 1e-3.")
    tiny, classes = 1e-8, student.shape[1]
    z = student.double() / temperature
    a = (z + (z.clamp(max=60) - z).detach()).exp()
    beliefs = (1 - smoothing) * (F.softmax(members.double() / temperature, dim=2) - 1 / classes) + 1 / classes
    log_belief = (beliefs + tiny).log().mean(dim=1)  # (N, C)
    spread = torch.lgamma(a + tiny).sum(dim=1) - torch.lgamma(a.sum(dim=1) + tiny)
    return temperature**2 * (spread - ((a - 1) * log_belief).sum(dim=1)).mean().to(student.dtype)


def _stacked(loss: str, logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """All networks' logits, (M, N, C)."""
    shapes = {tuple(z.shape) for z in logits}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"{loss} needs the logits of one network or more, all (N, C); got {sorted(shapes)}. "
            "Give it one tensor a network, of the same images.")
    z = torch.stack(tuple(logits))
    require_labels(loss, labels, "(N,)", (z.shape[1],))
    return z
