"""Pure distances between what two networks compute: tensors in, a scalar out.

They know nothing of limbeck and serve in any training loop:

    loss = F.cross_entropy(student, labels) + soft_kl(student, teacher.detach(), temperature=4.0)

The one that learns comes first, the one it learns from second, labels third. Nothing is detached but what a docstring
calls a constant. Values and gradients are finite in float32 for logits of ±1e4, maps of zeros and equal samples. Call
them outside autocast, on float32 or float64: half precision loses small probabilities.

A few are no distances but what distances are made of: `attention_map`, `standardise`, `ofd_margin`, and targets.
"""

from limbeck.losses.activations import activation_boundary, ofd, ofd_margin
from limbeck.losses.attention import attention_map, attention_transfer, factor_transfer, unit_mse, weighted_attention
from limbeck.losses.contrast import crd
from limbeck.losses.correlations import batch_correlation, class_correlation, dist
from limbeck.losses.decoupled import dkd, nontarget_kl, target_kl
from limbeck.losses.dense import absolute, cwd, ifvd, pair_wise, pixel_wise
from limbeck.losses.diversity import diversity_feature, diversity_loss, diversity_target
from limbeck.losses.ensembles import dirichlet_nll, general_weights, linear_target, minlogit_target, naive_target
from limbeck.losses.features import frobenius, hcl, hint, nst, vid, weighted_hint
from limbeck.losses.flows import fsp, kdsvd, lipschitz
from limbeck.losses.logits import hard_ce, soft_cross_entropy, soft_kl, standardise, standardised_kl
from limbeck.losses.relations import correlation_congruence, pkt, rkd_angle, rkd_distance, similarity_preserving

__all__ = [
    "absolute",
    "activation_boundary",
    "attention_map",
    "attention_transfer",
    "batch_correlation",
    "class_correlation",
    "correlation_congruence",
    "crd",
    "cwd",
    "dirichlet_nll",
    "dist",
    "diversity_feature",
    "diversity_loss",
    "diversity_target",
    "dkd",
    "factor_transfer",
    "frobenius",
    "fsp",
    "general_weights",
    "hard_ce",
    "hcl",
    "hint",
    "ifvd",
    "kdsvd",
    "linear_target",
    "lipschitz",
    "minlogit_target",
    "naive_target",
    "nontarget_kl",
    "nst",
    "ofd",
    "ofd_margin",
    "pair_wise",
    "pixel_wise",
    "pkt",
    "rkd_angle",
    "rkd_distance",
    "similarity_preserving",
    "soft_cross_entropy",
    "soft_kl",
    "standardise",
    "standardised_kl",
    "target_kl",
    "unit_mse",
    "vid",
    "weighted_attention",
    "weighted_hint",
]
