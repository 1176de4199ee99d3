"""KD in two halves (DKD): how sure the teacher is of the answer, and what it thinks of the other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.checks import NO_SOFTENING, require_labels, require_positive, require_same_shape


def target_kl(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Divergence between two classifiers' beliefs whether the answer is right at all (TCKD, a half of DKD).

    With p = softmax(z / T) at the true class y and b = (p_y, 1 - p_y),
        loss = T^2 * mean_n sum_k b^teacher_nk * (log b^teacher_nk - log b^student_nk),   k = 1, 2.

    Args:
        student: Logits, (N, C), C at least 2. Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        labels: True classes, (N,), int64 in [0, C).
        temperature: T > 0, in units of logits.

    Returns:
        Scalar, in nats, averaged over the batch; never negative; unchanged when a constant is added to any row.

    Raises:
        ValueError: If the shapes disagree, there is one class only or the temperature is not positive.

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679. The authors' code sums
    probabilities and takes the logarithm, which is infinite once 1 - p_y rounds to zero; here it is never left.
    """
    s, t, answer = _softened("target_kl", student, teacher, labels, temperature)
    return temperature**2 * _kl(_yes_and_no(s, answer), _yes_and_no(t, answer))


def nontarget_kl(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Divergence between two classifiers' beliefs about the classes that are not the answer (NCKD, a half of DKD).

    With the answer y left out and the other classes renormalised,
        q_c = exp(z_c / T) / sum_{j != y} exp(z_j / T)   for c != y,
        loss = T^2 * mean_n sum_{c != y_n} q^teacher_nc * (log q^teacher_nc - log q^student_nc).

    Args:
        student: Logits, (N, C), C at least 2. Gradients flow here, and none to the answer's logit.
        teacher: Logits, (N, C). Gradients would flow here too.
        labels: True classes, (N,), int64 in [0, C).
        temperature: T > 0, in units of logits.

    Returns:
        Scalar, in nats, averaged over the batch; never negative; unchanged when a constant is added to any row.

    Raises:
        ValueError: If the shapes disagree, there is one class only or the temperature is not positive.

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679. The authors' code subtracts 1000
    from the answer's softened logit instead of leaving it out; far below 1000 the values agree to rounding.
    """
    s, t, answer = _softened("nontarget_kl", student, teacher, labels, temperature)
    return temperature**2 * _kl(_others(s, answer), _others(t, answer))


def dkd(student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float = 1.0, beta: float = 8.0,
        temperature: float = 4.0) -> Tensor:
    """The two halves of KD with a weight each: `target_kl` and `nontarget_kl` (DKD).

        loss = alpha * target_kl + beta * nontarget_kl
    KD itself is alpha = 1 and, in place of beta, the teacher's 1 - p_y of each sample.

    Args:
        student: Logits, (N, C), C at least 2. Gradients flow here.
        teacher: Logits, (N, C). Gradients would flow here too.
        labels: True classes, (N,), int64 in [0, C).
        alpha: Weight of the answer's half.
        beta: Weight of the other classes' half. The authors take 2 to 8 on CIFAR-100, by pair, and 0.5 on ImageNet.
        temperature: T > 0, in units of logits.

    Returns:
        Scalar, in nats, averaged over the batch; never negative for weights that are not; unchanged when a constant is
        added to any row.

    Raises:
        ValueError: If the shapes disagree, there is one class only or the temperature is not positive.

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679, and mdistiller.
    """
    s, t, answer = _softened("dkd", student, teacher, labels, temperature)
    sure, others = _kl(_yes_and_no(s, answer), _yes_and_no(t, answer)), _kl(_others(s, answer), _others(t, answer))
    return temperature**2 * (alpha * sure + beta * others)


def _softened(loss: str, student: Tensor, teacher: Tensor, labels: Tensor,
              temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides' logits over T, and where the answer is, (N, C) bool."""
    require_same_shape(loss, student, teacher, "(N, C)", 2)
    n, c = student.shape
    if c < 2:
        raise ValueError(f"{loss} needs two classes or more; got {c}. Give every class a logit of its own.")
    require_labels(loss, labels, "(N,)", (n,))
    require_positive("temperature", temperature, NO_SOFTENING)
    return student / temperature, teacher / temperature, F.one_hot(labels, c).bool()


def _kl(log_s: Tensor, log_t: Tensor) -> Tensor:
    """Divergence of log-probabilities, averaged over the batch."""
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def _others(z: Tensor, answer: Tensor) -> Tensor:
    """Log-probabilities without the answer, (N, C); 0 at the answer, on both sides, so that it adds nothing."""
    return F.log_softmax(z.masked_fill(answer, -torch.inf), dim=1).masked_fill(answer, 0.0)


def _yes_and_no(z: Tensor, answer: Tensor) -> Tensor:
    """log p_y and log(1 - p_y), (N, 2)."""
    whole = z.logsumexp(dim=1)
    yes = z.masked_fill(~answer, 0.0).sum(dim=1)
    no = z.masked_fill(answer, -torch.inf).logsumexp(dim=1)
    return torch.stack([yes - whole, no - whole], dim=1)
