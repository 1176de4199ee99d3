"""Terms are numbers whose gradients go where they should; training on them works and leaves a plain student."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck.config import OptimizerSettings
from limbeck.contract.steps import CLOCK, IMAGES, Broken, images_for, known_outputs, step, values, weighed
from limbeck.contract.trial import Trial, built
from limbeck.method import Method
from limbeck.seen import Outputs
from limbeck.terms import Match
from limbeck.training.optimizers import build_optimizer


def terms_are_scalars(trial: Trial) -> None:
    """Every term is one finite float32 number with a gradient, the same again, and leaves what it reads alone."""
    method = built(trial)
    known = {name: {tap: x.clone() for tap, x in outputs.items()}  # no leaves, which cannot be changed in place
             for name, outputs in known_outputs(method, lambda shape, noise, pulled: noise).items()}
    before = [(x, x._version) for outputs in known.values() for x in outputs.values()]
    _check_shapes(method, known)
    state = copy.deepcopy(method.state_dict())
    losses, _ = values(method, known=known)
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim:
            given = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise Broken(f"term {name} returns a tensor {given}",
                         "Reduce it to one number, by .mean() over the images.")
        if loss.dtype != torch.float32 or not loss.isfinite():
            raise Broken(f"term {name} is {loss.item()}, {loss.dtype}, on ordinary input",
                         "Return a finite number of the inputs' own type.")
        if not loss.requires_grad:
            raise Broken(f"no gradient flows back from term {name}",
                         "Leave the student's tensors attached: no .detach(), .item(), argmax or no_grad on their way.")
    if any(x._version != version for x, version in before):
        raise Broken("what the terms read was changed in place", "Use x + y in place of x += y, relu(x) of relu_(x).")
    method.load_state_dict(state)  # running statistics, which a module that is lent in eval mode shows
    again, _ = values(method, known=known)
    differing = [name for name, loss in losses.items() if not torch.equal(loss, again[name])]
    if differing:
        raise Broken(f"{', '.join(differing)} gave another value on the same input",
                     "Draw random numbers from torch's own generator, and keep nothing between calls but in buffers.")


def _check_shapes(method: Method, known: Mapping[str, Outputs]) -> None:
    """Say what a distance that fails was given, where the two sides have different shapes."""
    torch.manual_seed(7)
    seen = method.see(images_for(method), CLOCK, known=known)
    for name, term in method.terms.items():
        if not isinstance(term, Match) or not all(isinstance(side, Tensor) for side in term.sides(seen)):
            continue
        student, source = (tuple(side.shape) for side in term.sides(seen))
        try:
            term(seen)
        except Exception as error:
            if student == source:
                raise
            raise Broken(f"term {name} fails on a student's {student} beside a teacher's {source}: {error}",
                         "Say connect='1x1 conv' to have them of one shape, or write it for two.") from error


def gradients_reach_whom_they_say(trial: Trial) -> None:
    """Each term's gradient reaches the members that the trial names, all of them and no other."""
    method = built(trial)
    _, losses, _ = step(method)
    for name, loss in losses.items():
        reached, allowed = members_reached(method, loss), trial.pulled(name)
        if allowed is None and trial.pulls:
            raise Broken(f"nobody said whom term {name} pulls", "Give its prefix in the trial's `pulls`.")
        if not reached or (allowed is not None and reached != allowed):
            raise Broken(f"term {name} sends gradients to {sorted(reached) or 'nobody'}, not to "
                         f"{sorted(allowed) if allowed else 'any member'}",
                         "Detach what it only reads, and leave attached what it pulls.")


def members_reached(method: Method, loss: Tensor) -> frozenset[str]:
    """Members whose own parameters a loss sends a gradient to."""
    reached = set()
    for name, member in method.members.items():
        parameters = list(member.parameters())
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) if parameters else ()
        if any(g is not None and bool(g.abs().sum() > 0) for g in found):
            reached.add(name)
    return frozenset(reached)


def one_backward_is_many(trial: Trial) -> None:
    """One backward of the weighted sum gives every parameter what the terms' own backwards add up to."""
    method = built(trial)
    parameters = list(method.parameters())
    total, losses, _ = step(method)
    together = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    apart = [torch.zeros_like(p) for p in parameters]
    for name, loss in losses.items():
        own = torch.autograd.grad(weighed(method, {name: loss}), parameters, retain_graph=True, allow_unused=True)
        for place, g in zip(apart, own, strict=True):
            place += 0 if g is None else g
    for (name, _), one, other in zip(method.named_parameters(), together, apart, strict=True):
        one = torch.zeros_like(other) if one is None else one
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
            raise Broken(f"{name} gets another gradient from all terms at once than from each alone",
                         "Let no term change what another one reads.")


def every_parameter_has_one_owner(trial: Trial) -> None:
    """Every parameter is stepped as exactly one member's."""
    method = built(trial)
    owned = [id(p) for parameters in method.owners().values() for p in parameters]
    if sorted(owned) != sorted(id(p) for p in method.parameters()):
        raise Broken("a parameter has no owner or two", "Own a module where it is trained, and `lend` it elsewhere.")


def inactive_terms_cost_nothing(trial: Trial) -> None:
    """With its supervised term alone, a method computes its student alone."""
    method = built(trial)
    seen = method.see(images_for(method), CLOCK)
    alone = {method.supervised} - {None}
    losses = method(seen, frozenset(alone))
    asked = {address.partition(".")[0] for name in losses for address in method.terms[name].reads}
    if set(losses) != alone or set(seen._outputs) != asked:
        raise Broken(f"the supervised term alone makes {sorted(set(seen._outputs) - asked)} compute too",
                     "Read other members inside the terms that need them.")


def loss_falls(trial: Trial) -> None:
    """Training on eight images lowers the weighted loss."""
    method = built(trial)
    optimizer = build_optimizer(method, OptimizerSettings(lr=trial.lr, weight_decay=0), {})
    totals = []
    for _ in range(25):
        total, _, _ = step(method)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    if not totals[-1] < 0.9 * totals[0]:
        raise Broken(f"25 steps on {IMAGES} images took the weighted loss from {totals[0]:.4g} to {totals[-1]:.4g}",
                     "See that it is to fall rather than rise, and lower its weight if it explodes.")


def student_is_clean(trial: Trial) -> None:
    """What ships is the plain network: it loads into a fresh one, has no hooks, and computes the same."""
    method = built(trial)
    step(method)
    student = method.student()
    assert student.factory is not None
    deployed, plain = student.deployed(), student.factory()
    plain.load_state_dict(deployed.state_dict())
    images = student.normalise(images_for(method).images)
    if any(m._forward_hooks or m._forward_pre_hooks for m in deployed.modules()):
        raise Broken("the deployed network carries hooks", "Tap layers by naming them in a term's `reads`.")
    if not torch.allclose(deployed.eval()(images), plain.eval()(images), rtol=1e-5, atol=1e-6):
        raise Broken("the deployed network is another than its weights make", "Keep scaffolding out of the student.")
