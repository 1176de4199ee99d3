"""Places and channels are found in any layout: maps, maps with channels last, tokens with others before them."""

from __future__ import annotations

import pytest
import timm
import torch
from core_tiny import Tokens, network
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.members import STATISTICS, Network
from limbeck.taps import Reader
from limbeck.taps.calls import record
from limbeck.taps.layouts import Layout, layouts
from limbeck.taps.stages import discover, explore

DUMMY = torch.zeros(1, 3, 16, 16)
MAP = torch.randn(2, 8, 4, 6)


@pytest.mark.parametrize(("layout", "x"), [
    (Layout("map", (4, 6)), MAP), (Layout("last", (4, 6)), MAP.permute(0, 2, 3, 1)),
    (Layout("tokens", (4, 6), 2), torch.cat([torch.randn(2, 2, 8), MAP.flatten(2).mT], dim=1))])
def test_every_layout_reads_as_the_same_map_and_tokens(layout: Layout, x: Tensor) -> None:
    assert torch.equal(layout.read(x, "map"), MAP)
    assert torch.equal(layout.read(x, "tokens"), MAP.flatten(2).mT)


def test_tokens_before_the_patches_are_read_apart() -> None:
    x = torch.randn(2, 3 + 16, 8, requires_grad=True)
    layout = Layout("tokens", (4, 4), 3)
    assert torch.equal(layout.read(x, "cls"), x[:, 0])
    assert torch.equal(layout.read(x, "prefix"), x[:, :3])
    layout.read(x, "cls").sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].eq(1).all()
    assert x.grad[:, 1:].eq(0).all()


@pytest.mark.parametrize("layout", [Layout("map", (4, 4)), Layout("last", (4, 4)), Layout("tokens", (4, 4), 0)])
def test_a_class_token_that_is_not_there_is_a_mistake(layout: Layout) -> None:
    with pytest.raises(Mistake, match="class token is asked for"):
        layout.read(torch.zeros(1, 16, 4) if layout.kind == "tokens" else torch.zeros(1, 4, 4, 4), "cls")


def test_at_another_image_size_the_grid_keeps_its_aspect() -> None:
    assert Layout("tokens", (2, 4), 1).read(torch.zeros(1, 1 + 4 * 8, 5), "map").shape == (1, 5, 4, 8)


class Shaped(nn.Module):
    """Modules that return tensors of given shapes, one after the other."""

    def __init__(self, *shapes: tuple[int, ...], kinds: tuple[type[nn.Module], ...] = ()):
        super().__init__()
        self.shapes = shapes
        self.parts = nn.ModuleList(kind() for kind in kinds or (nn.Identity,) * len(shapes))

    def forward(self, x: Tensor) -> Tensor:
        for part, shape in zip(self.parts, self.shapes, strict=True):
            last = part(torch.zeros(1, *shape))
        return last


class Rows(nn.Identity):
    """A class of its own."""


def found(image: tuple[int, int], *shapes: tuple[int, ...], kinds: tuple[type[nn.Module], ...] = ()) -> list[Layout]:
    places = layouts(record(Shaped(*shapes, kinds=kinds), torch.zeros(1, 3, *image)), image)
    return [places.get(f"parts.{i}") for i in range(len(shapes))]


@pytest.mark.parametrize(("image", "shape", "expected"), [
    ((32, 32), (96, 8, 8), Layout("map", (8, 8))), ((32, 32), (8, 8, 96), Layout("last", (8, 8))),
    ((32, 32), (768, 1, 1), Layout("map", (1, 1))), ((32, 64), (96, 4, 8), Layout("map", (4, 8))),
    ((32, 64), (4, 8, 96), Layout("last", (4, 8))), ((30, 50), (24, 8, 13), Layout("map", (8, 13))),
    ((32, 32), (65, 12), Layout("tokens", (8, 8), 1)), ((32, 64), (34, 12), Layout("tokens", (4, 8), 2)),
    ((32, 32), (64, 12), Layout("tokens", (8, 8), 0)), ((32, 32), (12,), None), ((32, 32), (3, 5, 7), None)])
def test_layouts_are_seen_from_one_shape(image, shape, expected) -> None:
    assert found(image, shape) == [expected]


def test_the_patch_embedding_says_how_many_tokens_stand_before_the_patches() -> None:
    """Nine tokens are a class token, four registers and 2 x 2 patches; alone they would be 3 x 3."""
    assert found((32, 32), (9, 12)) == [Layout("tokens", (3, 3), 0)]
    assert found((32, 32), (12, 2, 2), (9, 12)) == [Layout("map", (2, 2)), Layout("tokens", (2, 2), 5)]
    assert found((32, 32), (12, 8, 8), (65, 12), (12, 2, 2), (17, 12))[1::2] == [
        Layout("tokens", (8, 8), 1), Layout("tokens", (2, 2), 13)]


def test_where_a_shape_says_nothing_modules_of_the_same_class_decide() -> None:
    assert found((32, 32), (8, 8, 8)) == [Layout("map", (8, 8))]
    kinds = (Rows, Rows, nn.Identity, nn.Identity)
    assert [layout.kind for layout in found((32, 32), (16, 16, 8), (8, 8, 8), (8, 8, 8), (16, 4, 4), kinds=kinds)] == [
        "last", "last", "map", "map"]


def test_stages_with_channels_last_are_read_as_maps() -> None:
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=2, embed_dim=8, depths=(1, 1, 1),
                             num_heads=(1, 1, 1), num_classes=3)
    member = Network(swin, name="swin", size=(3, 32, 32), statistics=STATISTICS["imagenet"])
    assert [member.shape(stage) for stage in member.stages] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    images = torch.rand(2, 3, 32, 32)
    member.tap(["layers.1", "stage2:tokens"])
    outputs = member.eval().read(images)
    assert torch.equal(outputs["stage2"], outputs["layers.1"].permute(0, 3, 1, 2))
    assert torch.equal(outputs["stage2:tokens"], outputs["layers.1"].flatten(1, 2))


def test_blocks_are_read_as_maps_too() -> None:
    member = network(Tokens(), name="vit")
    assert {member.shape(block) for block in member.blocks} == {(8, 4, 4)}
    assert (member.as_map("blocks.3"), member.as_map("embed"), member.as_map("stage1")) == (
        "blocks.3:map", "embed", "stage1")
    assert (member.as_it_is("stage1"), member.as_it_is("embed"), member.as_it_is("pooled")) == (
        "blocks.1", "embed", "pooled")


def test_class_token_and_patches_are_canonical_taps_of_the_last_norm() -> None:
    module = Tokens()
    member = network(module)
    member.tap(["cls", "tokens", "norm", "pooled", "stage2:cls", "blocks.3"])
    outputs = member.read(torch.rand(2, 3, 16, 16))
    assert torch.equal(outputs["cls"], outputs["norm"][:, 0])
    assert torch.equal(outputs["cls"], outputs["pooled"])
    assert torch.equal(outputs["tokens"], outputs["norm"][:, 1:])
    assert torch.equal(outputs["stage2:cls"], outputs["blocks.3"][:, 0])


def test_a_layer_without_places_cannot_be_read_as_a_map() -> None:
    with pytest.raises(Mistake, match="'head' of Tokens holds no places"):
        network(Tokens()).tap(["head:map"])
    with pytest.raises(Mistake, match="class token is asked for"):
        network(Tokens()).tap(["embed:cls"])
    with pytest.raises(Mistake, match="no layer 'stage9:map'"):
        network(Tokens()).tap(["stage9:map"])


def test_two_heads_side_by_side_are_the_class_and_the_distillation_tokens() -> None:
    deit = timm.create_model("deit_tiny_distilled_patch16_224", img_size=16, patch_size=4, depth=4, embed_dim=8,
                             num_heads=2, num_classes=3).eval()
    found = explore(deit, DUMMY)
    assert found.layouts["blocks.3"] == Layout("tokens", (4, 4), 2)
    taps = {tap: found.taps[tap] for tap in ("pooled", "logits.class", "logits.distillation", "cls")}
    assert taps == {"pooled": "head:in", "logits.class": "head", "logits.distillation": "head_dist", "cls": "norm:cls"}
    outputs = Reader(deit, taps, DUMMY, layouts=found.layouts)(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close((outputs["logits.class"] + outputs["logits.distillation"]) / 2, outputs["logits"])
    assert torch.equal(outputs["pooled"], outputs["cls"])


def test_two_linear_layers_in_a_row_are_one_head() -> None:
    for between in ([], [nn.ReLU()]):
        head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5), *between, nn.Linear(5, 5))
        assert discover(head, DUMMY)["pooled"] == f"{len(head) - 1}:in"


class Fused(nn.Module):
    """Branches at two resolutions, summed outside any module, as in HRNet's head."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, 2, 1)
        self.down, self.last, self.fc = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 3)
        self.feature_info = [{"module": "high", "reduction": 1}, {"module": "high", "reduction": 2}]

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.high(x)) + self.low(x)
        return self.fc(self.last(x).mean((2, 3)))


def test_sums_are_stages_and_lists_of_maps_that_are_larger_than_they_say_are_not() -> None:
    taps = discover(Fused(), DUMMY)
    assert [taps[f"stage{i}"] for i in (1, 2, 3)] == ["high", "last:in", "last"]


def test_what_only_pools_is_no_stage() -> None:
    vgg = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
                        nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(8 * 49, 3))
    taps = discover(vgg, DUMMY)
    assert [tap for tap in taps if tap[5:].isdigit()] == ["stage1", "stage2"]
    assert (taps["stage1"], taps["stage2"]) == ("1", "4")
