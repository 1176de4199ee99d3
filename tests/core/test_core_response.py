"""How an optimiser's step answers to its gradient, against the difference of two steps that it really took."""

from __future__ import annotations

import pytest
import torch
from core_reference import OPTIMIZERS
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.search.response import check_exact, response


def stepped(kind: str, gradients: list[Tensor]) -> tuple[torch.optim.Optimizer, nn.Parameter]:
    """A parameter after one step along each of the gradients, the last still in place."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn_like(gradients[0]))
    optimizer = OPTIMIZERS[kind]([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return optimizer, parameter


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_response_is_the_difference_of_two_steps(kind, steps):
    gradients = list(torch.randn(steps, 6, dtype=torch.float64))
    optimizer, parameter = stepped(kind, gradients)
    reach = 1e-5
    ahead, behind = (stepped(kind, [*gradients[:-1], gradients[-1] + side * reach])[1] for side in (1, -1))
    expected = (ahead - behind).detach() / (2 * reach)
    found = response(optimizer, {"p": parameter})["p"]
    torch.testing.assert_close(found * torch.ones_like(expected), expected, rtol=1e-6, atol=1e-9)


def test_each_parameter_answers_by_its_own_group():
    one, two, alone = (nn.Parameter(torch.ones(2)) for _ in range(3))
    groups = [{"params": [one], "lr": 0.5}, {"params": [two], "momentum": 0.9, "nesterov": True}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    found = response(optimizer, {"one": one, "two": two, "alone": alone})
    assert found == {"one": -0.5, "two": pytest.approx(-0.19)}


def test_an_entry_without_a_gradient_answers_finitely_in_float32():
    """A dead unit has gradient 0 and second moment 0, and 0 / 0 would spread to every weight of the search."""
    gradient = torch.tensor([0.0, 1e-12, 1e-3, 1.0])
    optimizer, parameter = stepped("adamw", [gradient, gradient])
    found = response(optimizer, {"p": parameter})["p"]
    precise, wide = stepped("adamw", [gradient.double(), gradient.double()])
    torch.testing.assert_close(found.double(), response(precise, {"p": wide})["p"], rtol=1e-3, atol=1e-6)


def test_a_parameter_that_was_not_stepped_does_not_answer():
    parameter = nn.Parameter(torch.ones(2))
    assert response(OPTIMIZERS["adamw"]([parameter]), {"p": parameter}) == {"p": 0.0}


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam])
def test_other_optimisers_are_refused(optimizer):
    with pytest.raises(Mistake, match=f"SGD, Adam or AdamW; the student's optimiser is {optimizer.__name__}"):
        check_exact(optimizer([nn.Parameter(torch.ones(1))], lr=0.1))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_differentiated_optimisers_pass(kind):
    check_exact(OPTIMIZERS[kind]([nn.Parameter(torch.ones(1))]))
    check_exact(torch.optim.Adam([nn.Parameter(torch.ones(1))]))
