"""How parameters answer, in one optimiser step, to a small change of their gradient.

The step is elementwise, so the answer is a factor for each entry: d(theta') / d(gradient). Weights of terms enter the
gradient linearly, so this factor and the terms' own gradients give the slope of anything measured after the step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.optimizer_parts import Optimizers, parts


def response(optimizer: torch.optim.Optimizer | Optimizers,
             parameters: dict[str, nn.Parameter]) -> dict[str, Tensor | float]:
    """d(theta') / d(gradient) of the step that the optimiser has just made.

    For SGD with learning rate r: -r (plain and heavy ball), -r (1 + momentum) (Nesterov); the momentum buffer and
    weight decay do not depend on the newest weights. For Adam and AdamW, with gradient g, bias-corrected moments m and
    v, and q = sqrt(v) + eps: -r [(1 - beta1) / (c1 q) - m (1 - beta2) g / (c2 sqrt(v) q^2)], c1 and c2 the bias
    corrections.

    Args:
        optimizer: SGD, Adam or AdamW, its state as the step left it, gradients still in place.
        parameters: Name -> parameter of those asked for.

    Returns:
        Name -> factor; a number for SGD, a tensor like the parameter for Adam.

    Raises:
        Mistake: For another optimiser, or settings for which this is not exact.

    Source: specs/distpro.md section 8.1 for SGD; Adam's follows by differentiating its update.
    """
    factors: dict[str, Tensor | float] = {}
    for part in parts(optimizer):
        check_exact(part, parameters.values())
        groups = {id(p): group for group in part.param_groups for p in group["params"]}
        factor = _sgd if isinstance(part, torch.optim.SGD) else _adam
        factors |= {name: factor(part, groups[id(p)], p) for name, p in parameters.items() if id(p) in groups}
    return {name: factors[name] for name in parameters if name in factors}


def check_exact(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter] | None = None) -> None:
    """Refuse optimisers whose step is not differentiated here, with the reason.

    Args:
        optimizer: One kind.
        parameters: Whose steps are looked through; None is everyone's. Others may be stepped as they like.
    """
    asked = None if parameters is None else {id(p) for p in parameters}
    groups = [group for group in optimizer.param_groups
              if asked is None or any(id(p) in asked for p in group["params"])]
    if not groups:
        return
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam | torch.optim.AdamW):
        raise Mistake(f"a search differentiates through SGD, Adam or AdamW; the student's optimiser is {kind}. "
                      f"Set optimizer.name to one of these.")
    decoupled = not isinstance(optimizer, torch.optim.Adam) or isinstance(optimizer, torch.optim.AdamW)
    for group in groups:
        if group["weight_decay"] and not decoupled:
            raise Mistake(f"a search through Adam needs weight decay beside the gradient, as AdamW has it; got Adam "
                          f"with L2 weight decay {group['weight_decay']}. Use AdamW, or weight decay 0.")
        if group.get("dampening") or group.get("amsgrad") or group.get("maximize"):
            given = {k: group.get(k) for k in ("dampening", "amsgrad", "maximize")}
            raise Mistake(f"a search needs {kind} without dampening, amsgrad and maximize, for which its slopes would "
                          f"not be exact; got {given}. Turn it off.")


def _sgd(optimizer: torch.optim.Optimizer, group: dict, parameter: nn.Parameter) -> float:
    return -group["lr"] * (1 + group["momentum"] if group["nesterov"] else 1)


def _adam(optimizer: torch.optim.Optimizer, group: dict, parameter: nn.Parameter) -> Tensor | float:
    state, (beta1, beta2) = optimizer.state[parameter], group["betas"]
    if parameter.grad is None or not state:
        return 0.0
    steps = torch.as_tensor(state["step"], dtype=torch.float64)  # on the device where the kernel is fused
    correct1, correct2 = 1 - beta1**steps, 1 - beta2**steps
    root = (state["exp_avg_sq"] / correct2).sqrt()
    denominator = root + group["eps"]
    moment = state["exp_avg"] / correct1
    ratio = torch.where(root > 0, parameter.grad / root, 0.0)  # a parameter that has never had a gradient has root 0
    through_second = (moment / denominator) * (1 - beta2) * ratio / (correct2 * denominator)
    return -group["lr"] * ((1 - beta1) / (correct1 * denominator) - through_second)
