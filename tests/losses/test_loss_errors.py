"""Every refusal says what is needed, what was given and what to do."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import limbeck.losses as L

Z, MAPS = torch.zeros(2, 5), torch.zeros(2, 4, 6, 6)
LABELS, LABEL_MAPS = torch.tensor([0, 1]), torch.zeros(2, 6, 6, dtype=torch.int64)
OTHER, WIDER, VECTORS, FEWER = torch.zeros(2, 6), torch.zeros(2, 7, 6, 6), torch.zeros(2, 4), torch.zeros(1, 4, 6, 6)
PAIR = (MAPS, MAPS)

Refusal = tuple[Callable[..., Tensor], tuple, str]


def of_one_shape(form: str, *losses: Callable[..., Tensor], extras: tuple = ()) -> list[Refusal]:
    """Losses that are given two sides of different widths."""
    sides = (Z, OTHER) if form == "(N, C)" else (MAPS, WIDER)
    got = f"got student {tuple(sides[0].shape)}, teacher {tuple(sides[1].shape)}"
    return [(loss, sides + extras, f"{loss.__name__} needs student and teacher of one shape, {form}; {got}. "
             "Connect one side to the other's shape first.") for loss in losses]


def of_one_batch(form: str, student: Tensor, teacher: Tensor, *losses: Callable[..., Tensor],
                 extras: tuple = ()) -> list[Refusal]:
    """Losses that are given other batches, or what is no map."""
    got = f"got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    return [(loss, (student, teacher, *extras), f"{loss.__name__} needs student and teacher {form} of one batch; "
             f"{got}. Give it both networks' features of the same images.") for loss in losses]


def unsoftened(loss: Callable[..., Tensor], *inputs: object) -> Refusal:
    return partial(loss, temperature=0.0), inputs, "temperature must be positive; got 0.0. Use 1.0 for no softening."


def unknown(loss: Callable[..., Tensor], setting: str, choices: tuple[str, ...], *inputs: object,
            **settings: object) -> Refusal:
    return (partial(loss, **settings, **{setting: "other"}), inputs,
            f"{loss.__name__}'s {setting} must be one of {choices}; got 'other'. Choose one of these.")


SHAPES: list[Refusal] = [
    *of_one_shape("(N, C)", L.soft_kl, L.soft_cross_entropy, L.hard_ce, L.standardised_kl, L.dist, L.class_correlation,
                  L.batch_correlation),
    *of_one_shape("(N, C)", L.target_kl, L.nontarget_kl, L.dkd, extras=(LABELS,)),
    *of_one_shape("the same", L.hint, L.frobenius),
    *of_one_shape("(N, ...)", L.unit_mse, L.activation_boundary),
    *of_one_shape("(N, ...)", L.weighted_hint, extras=(torch.ones(2),)),
    *of_one_shape("(N, C) or (N, C, H, W)", L.hcl),
    *of_one_shape("(N, C, H, W)", L.factor_transfer, L.pixel_wise, L.cwd),
    *of_one_shape("(N, C, H, W)", L.vid, L.ofd, extras=(torch.ones(7),)),
    *of_one_batch("(N, C, H, W)", VECTORS, VECTORS, L.nst, L.attention_transfer, L.factor_transfer, L.pair_wise,
                  L.diversity_loss),
    *of_one_batch("(N, C, H, W)", VECTORS, VECTORS, L.weighted_attention, extras=(torch.ones(2),)),
    *of_one_batch("(N, C, H, W)", MAPS, FEWER, L.nst, L.attention_transfer, L.pair_wise),
    *of_one_batch("(N, ...)", MAPS, FEWER, L.similarity_preserving, L.rkd_distance, L.rkd_angle, L.pkt),
    (L.hcl, (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)), "one shape, (N, C) or (N, C, H, W); got student (2, 3, 4)"),
    (L.correlation_congruence, (Z, OTHER), "one shape, (N, D); got student (2, 5), teacher (2, 6). Connect one side"),
    (partial(L.correlation_congruence, mode="bilinear"), (Z, MAPS),
     "student and teacher (N, D) of one batch; got student (2, 5), teacher (2, 4, 6, 6). Give it both networks'"),
    (partial(L.ifvd, classes=3), (VECTORS, VECTORS, LABEL_MAPS), "ifvd needs student and teacher (N, C, H, W) of one"),
    (L.fsp, (PAIR, (MAPS, WIDER)), "fsp needs student and teacher of one shape, channels (N, C_a, C_b); "
     "got student (2, 4, 4), teacher (2, 4, 7). Connect one side to the other's shape first."),
    (L.fsp, ((VECTORS, VECTORS), PAIR), "fsp needs student and teacher (N, C, H, W) of one batch; got student (2, 4)"),
    (partial(L.fsp, mode="torchdistill"), ((VECTORS, VECTORS), PAIR),
     "fsp needs student and teacher (N, C, H, W) of one batch; got student (2, 4), teacher (2, 4). Give it both"),
    (L.lipschitz, (PAIR, (FEWER, FEWER)), "lipschitz needs student and teacher pairs of maps of one batch; "
     "got student (2, 4, 4), teacher (1, 4, 4). Give it both networks' features of the same images."),
    (L.kdsvd, (PAIR, (MAPS, WIDER)), "kdsvd, read as in repdistiller, needs student and teacher of one batch and the "
     "same channels; got student (2, 4, 6, 6), teacher (2, 7, 6, 6). Connect the student's map first."),
    (partial(L.kdsvd, mode="mdistiller"), (PAIR, (MAPS, MAPS[..., :3])), "read as in mdistiller, needs student and "
     "teacher of one batch and the same width; got student (2, 4, 6, 6), teacher (2, 4, 6, 3). Connect the student's"),
    (L.attention_map, (VECTORS,), "needs maps (N, C, H, W); got (2, 4). Tap a layer before the pooling."),
    (L.diversity_target, (VECTORS,), "needs maps (N, C, H, W); got (2, 4). Tap a layer before the pooling."),
    (L.standardise, (Z[:, :1],), "standardise needs logits (N, C) of two classes or more; got (2, 1). "
     "Give every class a logit of its own."),
    (L.target_kl, (Z[:, :1], Z[:, :1], LABELS), "target_kl needs two classes or more; got 1. "
     "Give every class a logit of its own."),
    (L.naive_target, ([Z, OTHER], LABELS), "naive_target needs the logits of one network or more, all (N, C); "
     "got [(2, 5), (2, 6)]. Give it one tensor a network, of the same images."),
    (L.linear_target, ([], LABELS), "linear_target needs the logits of one network or more, all (N, C); got []."),
    (L.general_weights, ([MAPS], LABELS), "general_weights needs the logits of one network or more, all (N, C); "
     "got [(2, 4, 6, 6)]."),
    (L.dirichlet_nll, (Z, Z), "dirichlet_nll needs student logits (N, C) and members' logits (N, M, C); got (2, 5) and "
     "(2, 5). Stack the members' logits along dimension 1."),
]

BESIDES: list[Refusal] = [
    (L.dkd, (Z, Z, LABELS[:1]), "dkd needs labels (N,) = (2,), int64; got (1,), torch.int64. "
     "Give it the class index of each, not one-hot or mixed labels."),
    (L.nontarget_kl, (Z, Z, Z[:, 0]), "needs labels (N,) = (2,), int64; got (2,), torch.float32. Give it the class"),
    (L.minlogit_target, ([Z, Z], Z), "minlogit_target needs labels (N,) = (2,), int64; got (2, 5), torch.float32."),
    (partial(L.ifvd, classes=3), (MAPS, MAPS, LABEL_MAPS[0]), "ifvd needs labels (N, H, W), int64, of 2 images; "
     "got (6, 6), torch.int64. Give it the label maps of the same images."),
    (partial(L.pixel_wise, valid=LABEL_MAPS), PAIR, "pixel_wise needs valid (N, H, W), bool, of 2 images; "
     "got (2, 6, 6), torch.int64. Compare the labels with the ignored one."),
    (partial(L.cwd, valid=LABEL_MAPS[:1] > 0), PAIR, "cwd needs valid (N, H, W), bool, of 2 images; got (1, 6, 6)"),
    (L.weighted_hint, (MAPS, MAPS, torch.ones(3)), "weighted_hint needs one weight a sample, (2,); got (3,). "
     "Give it one pair of layers at a time."),
    (L.weighted_attention, (MAPS, MAPS, torch.ones(2, 3)), "needs one weight a sample, (2,); got (2, 3). Give it one"),
    (L.vid, (MAPS, MAPS, torch.ones(3)), "vid needs one variance a channel, (4,); got (3,). "
     "Make the variance for the teacher's channels."),
    (L.ofd, (MAPS, MAPS, torch.ones(3)), "ofd needs one margin a channel, (4,); got (3,). "
     "Take ofd_margin of the teacher's batch norm at this layer."),
    (L.ofd_margin, (torch.ones(3), torch.ones(4)), "ofd_margin needs weight and bias (C,); got (3,) and (4,). "
     "Take both from the batch norm before the activation."),
    (partial(L.crd, samples=9), (torch.ones(2, 1), torch.ones(2, 3)), "crd needs positive scores (N,) and negative "
     "scores (N, K); got (2, 1) and (2, 3). Give it the matching pair's score apart from the others'."),
]

SETTINGS: list[Refusal] = [
    *[unsoftened(loss, Z, Z) for loss in (L.soft_kl, L.soft_cross_entropy, L.standardised_kl, L.dist,
                                          L.class_correlation, L.batch_correlation)],
    *[unsoftened(loss, Z, Z, LABELS) for loss in (L.target_kl, L.nontarget_kl, L.dkd)],
    *[unsoftened(loss, *PAIR) for loss in (L.pixel_wise, L.cwd)],
    unsoftened(L.general_weights, [Z], LABELS),
    unsoftened(L.dirichlet_nll, Z, Z[:, None]),
    (partial(L.soft_kl, temperature=float("nan")), (Z, Z), "temperature must be positive; got nan. Use 1.0"),
    (partial(L.activation_boundary, margin=-1.0), PAIR, "margin must be positive; got -1.0. Use the authors' 1.0."),
    (partial(L.pkt, eps=0.0), (Z, Z), "eps must be positive; got 0.0. Use the authors' 1e-7."),
    (partial(L.crd, samples=0), (Z[:, 0], Z), "samples must be positive; got 0. Give it the number of images that the"),
    (partial(L.crd, samples=9, eps=0.0), (Z[:, 0], Z), "eps must be positive; got 0.0. Use the authors' 1e-7."),
    (partial(L.correlation_congruence, gamma=0.0), (Z, Z), "gamma must be positive; got 0.0. Use torchdistill's 0.4."),
    (partial(L.correlation_congruence, order=0), (Z, Z), "an order of 1 or more; got 0. Use torchdistill's 2."),
    (partial(L.linear_target, steps=0), ([Z], LABELS), "steps must be positive; got 0. Use 10, which come close to"),
    (partial(L.linear_target, rate=0.0), ([Z], LABELS), "rate must be positive; got 0.0. Use 0.5."),
    (partial(L.ifvd, classes=0), (*PAIR, LABEL_MAPS), "classes must be positive; got 0. Give it how many there are"),
    (partial(L.dirichlet_nll, smoothing=1.0), (Z, Z[:, None]), "needs smoothing in [0, 1); got 1.0. Use 1e-3."),
    (partial(L.hcl, levels=(4, 0)), PAIR, "needs levels of 1 or more; got (4, 0). Name sides of grids, as (4, 2, 1)."),
    (partial(L.attention_map, power=0.5), (MAPS,), "needs a power of 1 or more; got 0.5. Use the authors' 2."),
    (partial(L.lipschitz, iterations=0), (PAIR, PAIR), "needs 1 iteration or more; got 0. Use the authors' 10."),
    (partial(L.kdsvd, count=0), (PAIR, PAIR), "needs a count of 1 or more; got 0. Use 1, as the released codes do."),
    (partial(L.diversity_loss, fraction=0.0), PAIR, "a fraction in (0, 1]; got 0.0. Use the authors' 1 / 3."),
    (partial(L.pair_wise, patch=1.5), PAIR, "needs a patch in (0, 1]; got 1.5. Use the authors' 0.5, half of the map."),
    unknown(L.soft_kl, "reduction", ("batchmean", "mean"), Z, Z),
    unknown(L.attention_transfer, "mode", ("code", "paper"), *PAIR),
    unknown(L.factor_transfer, "mode", ("paper", "repdistiller"), *PAIR),
    unknown(L.fsp, "mode", ("repdistiller", "torchdistill"), PAIR, PAIR),
    unknown(L.kdsvd, "mode", ("repdistiller", "mdistiller"), PAIR, PAIR),
    unknown(L.correlation_congruence, "mode", ("code", "gaussian", "bilinear"), Z, Z),
    unknown(L.diversity_target, "scale", ("raw", "unit"), MAPS),
    unknown(L.pixel_wise, "reduction", ("batchsum", "mean", "elements"), *PAIR),
    unknown(L.pair_wise, "pool", ("max", "average"), *PAIR),
    unknown(L.ifvd, "over", ("all", "labelled"), *PAIR, LABEL_MAPS, classes=3),
]


@pytest.mark.parametrize(("loss", "inputs", "message"), SHAPES + BESIDES + SETTINGS)
def test_what_cannot_be_compared_is_refused_with_a_reason(loss: Callable[..., Tensor], inputs: tuple, message: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is compared word for word below
        loss(*inputs)
    assert message in str(refused.value)
