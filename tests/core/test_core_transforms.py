"""DistPro's transforms of tokens: their sizes by hand, their parts, and the 15 pathways between two transformers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.contract.trial import batch, tiny
from limbeck.losses import hcl
from limbeck.members import STATISTICS, Network
from limbeck.method import Method, Setting
from limbeck.methods.distpro import distpro
from limbeck.seen import Clock
from limbeck.sources import untrained
from limbeck.tasks.classification import Classification
from limbeck.transforms import Gate, OverChannels, transform

SETTING = Setting(Classification(), tuple("abcd"), None, torch.arange(0), batch(2))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def grid_to_grid(own: int, wanted: int) -> int:
    """LayerNorm, linear, gate without bias, depth-wise 3 x 3, linear."""
    middle = min(512, own, wanted)
    return 2 * own + (own + 1) * middle + middle + (9 + 1) * middle + (middle + 1) * wanted


def one_token(own: int, wanted: int) -> int:
    """LayerNorm, linear, linear."""
    middle = min(512, own, wanted)
    return 2 * own + (own + 1) * middle + (middle + 1) * wanted


@pytest.mark.parametrize(("own", "wanted"), [(192, 768), (768, 192), (600, 700)])
def test_parameters_are_counted_by_hand(own: int, wanted: int) -> None:
    assert count(transform("tokens", (own, 14, 14), (wanted, 14, 14))) == grid_to_grid(own, wanted)
    assert count(transform("tokens", (own,), (wanted,))) == one_token(own, wanted)
    assert count(transform("tokens", (own,), (wanted, 14, 14))) == one_token(own, wanted)
    assert count(transform("tokens", (own, 14, 14), (wanted,))) == one_token(own, wanted)


def test_vit_b_to_deit_tiny_has_15_pathways() -> None:
    """specs/distpro.md section 4: blocks 3, 6, 9, 12 and the final class token, which teaches that one alone."""
    with torch.device("meta"):
        student, teacher = (Widths(192), Widths(768))
    method = _pathways(student, teacher)
    names = [name for name in method.terms if name != "ce"]
    assert names == [f"t{i}>s{j}/tokens" for i in (1, 2, 3, 4, "pooled") for j in (1, 2, 3, 4, "pooled")
                     if (5 if j == "pooled" else j) >= (5 if i == "pooled" else i)]
    sizes = [count(method.terms[name]) for name in names]
    assert len(sizes) == 15
    assert sizes.count(grid_to_grid(192, 768)) == 10
    assert sizes.count(one_token(192, 768)) == 5
    assert grid_to_grid(192, 768) == 384 + 193 * 192 + 192 + 1920 + 193 * 768 == 187_776
    assert sum(sizes) == 10 * 187_776 + 5 * 185_664


class Widths(nn.Module):
    """A transformer of 12 blocks on 14 x 14 patches; light, as only widths matter."""

    def __init__(self, width: int):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 16, 16)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(width, width)) for _ in range(12)))
        self.cls, self.head = nn.Parameter(torch.zeros(1, 1, width)), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        return self.head(self.blocks(torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1))[:, 0])


def _pathways(student: nn.Module, teacher: nn.Module) -> Method:
    networks = [Network(module.to_empty(device="cpu"), name="vit", size=(3, 224, 224),
                        statistics=STATISTICS["identity"]) for module in (student, teacher)]
    assert [networks[0].addresses[stage] for stage in networks[0].stages] == [f"blocks.{i}:map" for i in (2, 5, 8, 11)]
    return distpro(*networks, SETTING, space="imagenet15")


def test_the_real_pair_is_taken_like_it() -> None:
    deit, vit = untrained("timm:deit_tiny_patch16_224"), tiny(kind="vit")
    assert deit.of_tokens
    assert [deit.shape(tap) for tap in (*deit.stages, "pooled", "cls")] == [(192, 14, 14)] * 4 + [(192,)] * 2
    names = distpro(deit, vit, SETTING, space="imagenet15").terms
    assert len(names) == 16


def test_a_grids_transform_computes_its_layers_in_order() -> None:
    connector, x = transform("tokens", (6, 4, 4), (8, 4, 4)).double(), torch.randn(2, 6, 4, 4, dtype=torch.float64)
    _, norm, first, _, gate, around, _, last = connector
    tokens = x.flatten(2).mT  # (N, T, C)
    tokens = F.gelu(F.linear(F.layer_norm(tokens, (6,), norm.weight, norm.bias), first.weight.flatten(1), first.bias))
    tokens = tokens * (tokens @ gate.attention.weight.flatten(1).T)
    tokens = tokens + around.convolution(tokens.mT.unflatten(2, (4, 4))).flatten(2).mT
    expected = F.linear(tokens, last.weight.flatten(1), last.bias)
    torch.testing.assert_close(connector(x), expected.mT.unflatten(2, (4, 4)))


def test_one_token_teaches_a_grid_at_every_place_and_learns_from_its_mean() -> None:
    cls = torch.randn(2, 6)
    to_grid, to_token = transform("tokens", (6,), (8, 4, 4)), transform("tokens", (6, 4, 4), (8,))
    taught = to_grid(cls)
    assert taught.shape == (2, 8, 4, 4)
    torch.testing.assert_close(taught, taught[..., :1, :1].expand_as(taught))
    x = torch.randn(2, 6, 4, 4)
    assert to_token(x).shape == (2, 8, 1, 1)
    torch.testing.assert_close(to_token(x), to_token(x.mean((2, 3))))


def test_norm_over_channels_is_layer_norm_of_tokens() -> None:
    x = torch.randn(2, 6, 3, 5)
    expected = F.layer_norm(x.flatten(2).mT, (6,)).mT.unflatten(2, (3, 5))
    torch.testing.assert_close(OverChannels(6, learned=False)(x), expected)
    assert count(OverChannels(6, learned=False)) == 0
    assert count(OverChannels(6)) == 12


@pytest.mark.parametrize(("kinds", "kind", "plain"), [
    (("vit", "vit"), "tokens", True), (("vit", "cnn"), "tokens", False), (("cnn", "vit"), "complex", True),
    (("cnn", "cnn"), "complex", False)])
def test_the_student_chooses_the_transform_and_the_teachers_tokens_are_normalised(kinds, kind, plain) -> None:
    student, teacher = tiny(kind=kinds[0]), tiny(12, kind=kinds[1])
    method = distpro(student, teacher, SETTING, space="imagenet15").eval()
    assert {name.partition("/")[2] for name in method.terms if name != "ce"} == {kind}
    seen = method.see(batch(), Clock(0, 2, 2))
    values = method(seen, frozenset(method.terms))
    target = seen["teacher.stage1.pre"]
    if plain:
        target = F.layer_norm(target.movedim(1, -1), target.shape[1:2]).movedim(-1, 1)
    term = method.terms[f"t1>s2/{kind}"]
    own = "student.stage2.pre"
    torch.testing.assert_close(values[f"t1>s2/{kind}"], hcl(term.connect(seen[own]), target))
    last = method.terms[f"tpooled>spooled/{kind}"]
    own, target = last.connect(seen["student.pooled"]), seen["teacher.pooled"]
    torch.testing.assert_close(values[f"tpooled>spooled/{kind}"], F.mse_loss(own[..., 0, 0], target))


def test_transforms_that_are_asked_for_are_taken_and_depth_is_a_part_of_the_way() -> None:
    method = distpro(tiny(kind="vit"), tiny(kind="vit"), SETTING, transforms=["c1"])
    assert {name.partition("/")[2] for name in method.terms if name != "ce"} == {"c1"}
    mixed = distpro(tiny(kind="vit"), tiny(), SETTING, pairs="triangular").terms  # four stages, and three
    assert [name for name in mixed if name.startswith("t2")] == [f"t2>s{j}/tokens" for j in (3, 4)]
    assert [name for name in mixed if name.startswith("t3")] == ["t3>s4/tokens"]
    assert any(isinstance(part, Gate) for part in mixed["t3>s4/tokens"].modules())
