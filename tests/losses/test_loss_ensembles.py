"""Targets of several networks, and the Dirichlet loss, against searches and torch's own distribution."""

import torch
import torch.nn.functional as F

from limbeck.losses import dirichlet_nll, general_weights, linear_target, minlogit_target, naive_target

LABELS = torch.tensor([0, 3, 2, 2, 1, 4])


def test_naive_target_takes_each_sample_from_whoever_is_nearest_to_the_label(draw):
    logits = [draw(6, 5) for _ in range(3)]
    target = naive_target(logits, LABELS)
    for n, y in enumerate(LABELS):
        best = min(logits, key=lambda z, n=n, y=y: -z[n].log_softmax(0)[y].item())
        torch.testing.assert_close(target[n], best[n])


def test_minlogit_target_is_the_least_above_the_label_and_beats_every_network(draw):
    logits = [draw(6, 5) for _ in range(3)]
    target = minlogit_target(logits, LABELS)
    for n, y in enumerate(LABELS):
        for c in range(5):
            assert target[n, c] == min(z[n, c] - z[n, y] for z in logits)
    losses = torch.stack([F.cross_entropy(z, LABELS, reduction="none") for z in logits])
    assert (F.cross_entropy(target, LABELS, reduction="none") <= losses.amin(0)).all()


def test_linear_target_comes_close_to_the_best_mixture(draw):
    for scale in (0.3, 3.0):
        first, second = scale * draw(6, 5), scale * draw(6, 5) + 2 * F.one_hot(LABELS, 5)
        shares = torch.linspace(0, 1, 101).double()
        grid = [F.cross_entropy(a * first + (1 - a) * second, LABELS).item() for a in shares]
        found = F.cross_entropy(linear_target([first, second], LABELS), LABELS).item()
        assert found <= min(grid) + 0.1 * (max(grid) - min(grid))
        closer = F.cross_entropy(linear_target([first, second], LABELS, steps=200, rate=0.1), LABELS).item()
        assert closer <= min(grid) + 0.01 * (max(grid) - min(grid))


def test_linear_target_works_without_gradients_and_passes_them_to_the_logits_alone(draw):
    logits = [draw(6, 5).requires_grad_(), draw(6, 5).requires_grad_()]
    with torch.no_grad():
        constant = linear_target(logits, LABELS)
    live = linear_target(logits, LABELS)
    torch.testing.assert_close(constant, live)
    first, second = torch.autograd.grad(live.sum(), logits)
    torch.testing.assert_close(first + second, torch.ones_like(first))


def test_general_weights_have_the_smallest_error_of_all_mixtures(draw):
    logits = [draw(6, 5) + share * F.one_hot(LABELS, 5) for share in (1.0, 2.0)]
    p = [z.div(2).softmax(1) for z in logits]

    def error(w):
        return (w * p[0] + (1 - w) * p[1] - F.one_hot(LABELS, 5)).square().sum()

    weights = general_weights(logits, LABELS, temperature=2.0)
    best = min(torch.linspace(0, 1, 1001).double(), key=lambda w: error(w).item())
    torch.testing.assert_close(weights, torch.stack([best, 1 - best]), atol=2e-3, rtol=0)


def test_general_weights_are_equal_for_equal_networks_and_leave_out_a_harmful_one(draw):
    z = draw(6, 5)
    torch.testing.assert_close(general_weights([z, z], LABELS), torch.full((2,), 0.5, dtype=torch.float64))
    wrong = [5.0 * F.one_hot(LABELS, 5), -5.0 * F.one_hot(LABELS, 5)]
    weights = general_weights(wrong, LABELS)
    assert weights[1] == 0
    assert weights[0] == 1


def test_dirichlet_nll_is_that_of_torch_s_dirichlet(agree, draw):
    def plain(student, members):
        total = 0.0
        for z, ensemble in zip(student, members, strict=True):
            density = torch.distributions.Dirichlet((z / 2).double().exp())
            for member in ensemble:
                belief = 0.999 * ((member / 2).double().softmax(0) - 1 / 5) + 1 / 5
                total = total - density.log_prob(belief) / len(ensemble)
        return (4 * total / len(student)).to(student.dtype)

    agree(lambda s, t: dirichlet_nll(s, t, temperature=2.0), plain, draw(4, 5), draw(4, 3, 5), learn=(0, 1))


def test_dirichlet_nll_still_pulls_a_concentration_beyond_its_bound_back(draw):
    student = torch.full((2, 5), 1000.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(dirichlet_nll(student, draw(2, 3, 5).float()), student)
    assert gradient.isfinite().all()
    assert (gradient.sum(1) > 0).all()
