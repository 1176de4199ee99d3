"""FFSD's diversity against loops over places."""

import pytest
import torch

from limbeck.losses import attention_map, diversity_feature, diversity_loss, diversity_target


def turned(attention, scale="raw"):
    """One sample's target, place by place; 3 × 3 places, so that the third is kept at 1 / 3."""
    n = (attention**2).sum().sqrt()
    a = attention / n
    n = n if scale == "raw" else 1.0
    threshold = sorted(a.flatten().tolist())[2]
    out = torch.zeros_like(a)
    for x in range(3):
        for y in range(3):
            value = a[x, y].item()
            out[x, y] = n - value if value > threshold else value if value < threshold else n / 2
    return out if scale == "raw" else out / (out**2).sum().sqrt()


@pytest.mark.parametrize("scale", ["raw", "unit"])
def test_diversity_target(draw, scale):
    features = draw(3, 4, 3, 3)
    plain = torch.stack([turned(a, scale) for a in attention_map(features)])
    torch.testing.assert_close(diversity_target(features, scale=scale), plain)


def test_diversity_target_keeps_a_place_at_least():
    target = diversity_target(torch.tensor([[[[1.0, 2.0]]]]), fraction=0.1)
    torch.testing.assert_close(target, torch.tensor([[[17**0.5 / 2, 17**0.5 - 4 / 17**0.5]]]))


@pytest.mark.parametrize("scale", ["raw", "unit"])
def test_diversity_loss(agree, draw, scale):
    def plain(student, previous):
        total = 0.0
        for a, b in zip(attention_map(student), attention_map(previous), strict=True):
            total = total + ((a / (a**2).sum().sqrt() - turned(b, scale)) ** 2).mean() / 3
        return total

    agree(lambda s, p: diversity_loss(s, p, scale=scale), plain, draw(3, 4, 3, 3), draw(3, 5, 3, 3))


def test_diversity_loss_moves_attention_away_from_where_the_other_looked_most():
    previous = torch.linspace(0.1, 0.2, 9).view(1, 1, 3, 3)
    previous[0, 0, 1, 1] = 2.0
    student = torch.ones(1, 1, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(diversity_loss(student, previous, scale="unit"), student)
    assert gradient[0, 0, 1, 1] > 0
    assert gradient[0, 0, 2, 2] < 0


def test_diversity_feature(draw):
    previous = draw(3, 4, 3, 3)
    ours = diversity_feature(previous)
    for features, feature in zip(previous, ours, strict=True):
        attention = (features**2).mean(0)
        n = (attention**2).sum().sqrt()
        torch.testing.assert_close(feature, features + (turned(attention) - attention / n) * n / 4)


def test_the_other_s_features_are_constants(draw):
    previous = draw(3, 4, 3, 3).requires_grad_()
    for made in (diversity_target(previous), diversity_feature(previous)):
        assert not made.requires_grad
