"""`limbeck taps`: what can be tapped, which taps are stages, and how stages pair."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.errors import Mistake
from limbeck.guide.listing import taps_of


def rows(text: str) -> dict[str, list[str]]:
    """Tap -> its other columns, of one network."""
    lines = [line[3:].split("  ") for line in text.splitlines()[2:] if line.strip()]
    return {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}


def test_shapes_strides_and_layers_of_a_transformer() -> None:
    text = taps_of("timm:test_vit", 32)
    found = rows(text)
    assert text.splitlines()[0].startswith("timm:test_vit at 32 x 32; * marks stages.")
    assert found["stage2"] == ["64 x 2 x 2", "16", "blocks.3:map"]
    assert found["tokens"] == ["4 x 64", "16", "norm:tokens"]
    assert found["cls"] == ["64", "norm:cls"]
    assert found["pooled"] == ["64", "head:in"]
    marked = [line[3:].split()[0] for line in text.splitlines() if line.startswith("*")]
    assert marked == ["stage1", "stage2", "stage3", "stage4"]
    assert "blocks.0" not in found


def test_every_layer_is_listed_if_asked_for() -> None:
    found = rows(taps_of("resnet8", everything=True))
    assert found["layer2.0.conv1"] == ["32 x 16 x 16", "2", "layer2.0.conv1"]
    assert found["stage3"] == ["64 x 8 x 8", "4", "layer3"]
    assert len(found) > 20


def test_both_networks_at_one_size_and_their_pairs() -> None:
    own, other, pairs = taps_of("resnet8", None, "timm:test_vit").split("\n\n")
    assert own.startswith("resnet8 at 160 x 160")
    assert other.startswith("timm:test_vit at 160 x 160")
    assert pairs.splitlines() == [
        "stage1 of the student, 16 x 160 x 160, stride 1  <-  stage1 of the teacher, 64 x 10 x 10, stride 16",
        "stage2 of the student, 32 x 80 x 80, stride 2  <-  stage3 of the teacher, 64 x 10 x 10, stride 16",
        "stage3 of the student, 64 x 40 x 40, stride 4  <-  stage4 of the teacher, 64 x 10 x 10, stride 16"]


def test_what_cannot_look_at_small_images_is_shown_at_224() -> None:
    assert taps_of("torchvision:alexnet").startswith("torchvision:alexnet at 224 x 224")
    with pytest.raises(Mistake, match=r"alexnet cannot look at images of 32 x 32"):
        taps_of("torchvision:alexnet", 32)


def test_from_the_command_line() -> None:
    result = CliRunner().invoke(app, ["taps", "resnet8", "--teacher", "resnet20", "--size", "16"])
    assert result.exit_code == 0
    assert result.output.count("* ") == 8  # what the mark means, twice, and three stages each
    with pytest.raises(Mistake, match="got 'resnet9999'"):
        taps_of("resnet8", None, "resnet9999")
