"""Networks of dense tasks: published sizes and names, parity with plainer formulations, taps; specs/models.md 7, 8."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2
from torchvision.models.segmentation import deeplabv3_resnet50

from limbeck.config import NetworkSettings
from limbeck.errors import Mistake
from limbeck.members import STATISTICS, Network
from limbeck.networks import ZOO, build
from limbeck.networks.checkpoints import load_into, read_state
from limbeck.networks.sparse_to_dense import Unpool
from limbeck.sources import check_network, untrained

State = dict[str, Tensor]
BN = r"\.(weight|bias|running_mean|running_var)"
SEGMENTERS = [name for name, entry in ZOO.items() if entry.task == "segmentation"]
PUBLISHED = {"pspnet_resnet101": 70_437_350, "pspnet_resnet18": 13_068_262, "sparse_to_dense_resnet18": 11_482_800,
             "sparse_to_dense_resnet18_deconv3": 11_700_400, "sparse_to_dense_resnet50": 28_395_008,
             "sparse_to_dense_resnet50_deconv3": 31_876_608}


def made(name: str, classes: int = 5, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build(name, classes, channels).eval()


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name, expected):
    with torch.device("meta"):
        network = build(name, 1 if ZOO[name].task == "depth" else 19)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


PATTERNS = {
    "pspnet_resnet18": (
        r"conv[123]\.weight", rf"bn[123]{BN}", r"layer[1-4]\.[01]\.conv[12]\.weight", rf"layer[1-4]\.[01]\.bn[12]{BN}",
        r"layer[1-4]\.0\.downsample\.0\.weight", rf"layer[1-4]\.0\.downsample\.1{BN}",
        r"pspmodule\.stages\.[0-3]\.1\.weight", rf"pspmodule\.stages\.[0-3]\.2{BN}",
        r"pspmodule\.bottleneck\.0\.weight", rf"pspmodule\.bottleneck\.1{BN}", r"head\.(weight|bias)",
        r"dsn\.[03]\.(weight|bias)", rf"dsn\.1{BN}"),
    "sparse_to_dense_resnet18_deconv3": (
        r"conv[123]\.weight", rf"bn[12]{BN}", r"layer[1-4]\.[01]\.conv[12]\.weight", rf"layer[1-4]\.[01]\.bn[12]{BN}",
        r"layer[2-4]\.0\.downsample\.0\.weight", rf"layer[2-4]\.0\.downsample\.1{BN}",
        r"decoder\.layer[1-4]\.deconv3\.weight", rf"decoder\.layer[1-4]\.batchnorm{BN}"),
    "sparse_to_dense_resnet18_upproj": (
        r"conv[123]\.weight", rf"bn[12]{BN}", r"layer[1-4]\.[01]\.conv[12]\.weight", rf"layer[1-4]\.[01]\.bn[12]{BN}",
        r"layer[2-4]\.0\.downsample\.0\.weight", rf"layer[2-4]\.0\.downsample\.1{BN}",
        r"decoder\.layer[1-4]\.upper_branch\.conv[12]\.weight",
        rf"decoder\.layer[1-4]\.upper_branch\.batchnorm[12]{BN}", r"decoder\.layer[1-4]\.bottom_branch\.conv\.weight",
        rf"decoder\.layer[1-4]\.bottom_branch\.batchnorm{BN}"),
}


@pytest.mark.parametrize(("name", "patterns"), PATTERNS.items())
def test_names_are_the_published_ones(name, patterns):
    used = set()
    for key in published(made(name)):
        fitting = [pattern for pattern in patterns if re.fullmatch(pattern, key)]
        assert fitting, key
        used.update(fitting)
    assert used == set(patterns)


def published(network: nn.Module) -> State:
    """A state dict as the authors' own norms write it, without counts."""
    return {name: x for name, x in network.state_dict().items() if not name.endswith("num_batches_tracked")}


# --- plainer formulations, from the state dicts alone


def conv(x: Tensor, s: State, name: str, stride: int = 1, rate: int = 1) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s.get(f"{name}.bias"), stride, (weight.shape[-1] // 2) * rate, rate)


def bn(x: Tensor, s: State, name: str) -> Tensor:
    mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"])


def stages(x: Tensor, s: State, rates: tuple[int, ...]) -> list[Tensor]:
    """The maps behind four stages of basic blocks."""
    found = []
    for number, rate in enumerate(rates, start=1):
        i = 0
        while f"layer{number}.{i}.conv1.weight" in s:
            here = f"layer{number}.{i}"
            stride = 2 if i == 0 and number > 1 and rate == 1 else 1
            y = F.relu(bn(conv(x, s, f"{here}.conv1", stride, rate), s, f"{here}.bn1"))
            y = bn(conv(y, s, f"{here}.conv2", 1, rate), s, f"{here}.bn2")
            if f"{here}.downsample.0.weight" in s:
                x = bn(conv(x, s, f"{here}.downsample.0", stride), s, f"{here}.downsample.1")
            x, i = F.relu(x + y), i + 1
        found.append(x)
    return found


def pspnet(x: Tensor, s: State) -> dict[str, Tensor]:
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = F.relu(bn(conv(x, s, f"conv{number}", stride), s, f"bn{number}"))
    one, two, three, four = stages(F.max_pool2d(x, 3, 2, 1, ceil_mode=True), s, (1, 1, 2, 4))
    grids = []
    for k, cells in enumerate((1, 2, 3, 6)):
        y = conv(F.adaptive_avg_pool2d(four, cells), s, f"pspmodule.stages.{k}.1")
        y = F.leaky_relu(bn(y, s, f"pspmodule.stages.{k}.2"), 0.01)
        grids.append(F.interpolate(y, four.shape[-2:], mode="bilinear", align_corners=True))
    psp = conv(torch.cat([*grids, four], 1), s, "pspmodule.bottleneck.0")
    psp = F.leaky_relu(bn(psp, s, "pspmodule.bottleneck.1"), 0.01)
    aux = conv(F.leaky_relu(bn(conv(three, s, "dsn.0"), s, "dsn.1"), 0.01), s, "dsn.3")
    return {"stage1": one, "stage2": two, "stage3": three, "stage4": four, "psp": psp, "aux": aux,
            "logits": conv(psp, s, "head")}


def unpool(x: Tensor) -> Tensor:
    corner = torch.zeros(x.shape[1], 1, 2, 2, dtype=x.dtype)
    corner[..., 0, 0] = 1
    return F.conv_transpose2d(x, corner, stride=2, groups=x.shape[1])


def doubled(x: Tensor, s: State, here: str) -> Tensor:
    for kernel in (2, 3):
        if f"{here}.deconv{kernel}.weight" in s:
            x = F.conv_transpose2d(x, s[f"{here}.deconv{kernel}.weight"], None, 2, kernel // 3, kernel % 2)
            return F.relu(bn(x, s, f"{here}.batchnorm"))
    x = unpool(x)
    if f"{here}.conv.weight" in s:
        return F.relu(bn(conv(x, s, f"{here}.conv"), s, f"{here}.batchnorm"))
    y = F.relu(bn(conv(x, s, f"{here}.upper_branch.conv1"), s, f"{here}.upper_branch.batchnorm1"))
    y = bn(conv(y, s, f"{here}.upper_branch.conv2"), s, f"{here}.upper_branch.batchnorm2")
    return F.relu(y + bn(conv(x, s, f"{here}.bottom_branch.conv"), s, f"{here}.bottom_branch.batchnorm"))


def sparse_to_dense(x: Tensor, s: State) -> dict[str, Tensor]:
    x = F.max_pool2d(F.relu(bn(conv(x, s, "conv1", 2), s, "bn1")), 3, 2, 1)
    found = stages(x, s, (1, 1, 1, 1))
    outputs = {f"stage{number}": x for number, x in enumerate(found, start=1)}
    x = bn(conv(found[3], s, "conv2"), s, "bn2")
    for number in range(1, 5):
        x = outputs[f"decoder{number}"] = doubled(x, s, f"decoder.layer{number}")
    return outputs | {"logits": conv(x, s, "conv3")}


@pytest.mark.parametrize(("name", "plain", "channels"), [
    ("pspnet_resnet18", pspnet, 3), ("pspnet_tiny", pspnet, 3), ("sparse_to_dense_resnet18", sparse_to_dense, 4),
    ("sparse_to_dense_resnet18_deconv3", sparse_to_dense, 3), ("sparse_to_dense_resnet18_upconv", sparse_to_dense, 3),
    ("sparse_to_dense_resnet18_upproj", sparse_to_dense, 3)])
def test_a_published_file_gives_what_a_plainer_formulation_does(name, plain, channels, read, tmp_path: Path):
    torch.manual_seed(1)
    source = build(name, 5, channels)
    for layer in source.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    torch.save({f"module.{key}": x for key, x in published(source).items()}, tmp_path / "CS_scenes_40000.pth")
    network = made(name, channels=channels)
    load_into(network, read_state(tmp_path / "CS_scenes_40000.pth"), "the file")
    images = torch.rand(2, channels, 49, 65, dtype=torch.float64)

    expected = plain(images, {key: x.double() for key, x in published(source).items()})
    outputs = read(network.double(), images)

    for tap, x in expected.items():
        torch.testing.assert_close(outputs[tap], x, rtol=1e-8, atol=1e-8, msg=lambda m, tap=tap: f"{tap}: {m}")


def test_torchvisions_weights_and_outputs_are_deeplabs():
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True).eval()
    ours = made("deeplabv3_resnet50")
    load_into(ours, theirs.state_dict(), "torchvision")
    images = torch.rand(1, 3, 33, 49)
    with torch.no_grad():
        found = F.interpolate(ours(images), images.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(found, theirs(images)["out"], rtol=1e-5, atol=1e-5)


def test_torchvisions_mobilenet_fits_as_a_body():
    theirs = {key: x.shape for key, x in mobilenet_v2().state_dict().items() if key.startswith("features")}
    own = {key: x.shape for key, x in made("pspnet_mobilenetv2").state_dict().items() if key.startswith("features")}
    assert own == {key: shape for key, shape in theirs.items() if not key.startswith("features.18")}


@pytest.mark.parametrize(("name", "taps"), [
    ("fcn_resnet50", {"aux"}), ("deeplabv3_resnet50", {"aux", "psp"}), ("lraspp_mobilenet_v3_large", set())])
def test_torchvisions_segmentation_networks_are_networks(name, taps):
    settings = NetworkSettings(name=f"torchvision:{name}")
    check_network(settings)
    torch.manual_seed(0)
    module = untrained(settings.name, classes=5).module
    network = Network(module, name=name, size=(3, 33, 49), statistics=STATISTICS["imagenet"])
    assert network.shape("logits") == (5, 33, 49)
    assert (network.num_classes, len(network.stages)) == (5, 4)
    assert {tap for tap in network.addresses if tap in ("aux", "psp")} == taps
    assert network.auxiliary == ({"aux": 0.5} if "aux" in taps else {})
    if "aux" in taps:
        assert network.shape("aux")[0] == 5


# --- what stands where


@pytest.mark.parametrize(("name", "stage_sizes", "size"), [
    ("pspnet_resnet18", {1: (64, 17, 25), 2: (128, 9, 13), 3: (256, 9, 13), 4: (512, 9, 13)}, (65, 97)),
    ("pspnet_mobilenetv2", {1: (24, 17, 25), 2: (32, 9, 13), 3: (96, 9, 13), 4: (320, 9, 13)}, (65, 97)),
    ("deeplabv3_mobilenetv2", {1: (24, 17, 25), 2: (32, 9, 13), 3: (96, 9, 13), 4: (320, 9, 13)}, (65, 97)),
    ("deeplabv3_resnet18", {1: (64, 17, 25), 2: (128, 9, 13), 3: (256, 9, 13), 4: (512, 9, 13)}, (65, 97))])
def test_segmentation_taps(name, stage_sizes, size, read):
    seen = read(made(name), torch.rand(1, 3, *size))
    for number, shape in stage_sizes.items():
        assert seen[f"stage{number}"].shape[1:] == seen[f"stage{number}.pre"].shape[1:] == shape
    width = 256 if name.startswith("deeplab") else 128
    assert seen["psp"].shape[1:] == (width, 9, 13)
    assert seen["aux"].shape == seen["logits"].shape == (1, 5, 9, 13)


def test_depth_taps_have_the_published_sizes(read):
    seen = read(made("sparse_to_dense_resnet18", 1, 4), torch.rand(1, 4, 228, 304))
    sizes = {"stage1": (57, 76), "stage2": (29, 38), "stage3": (15, 19), "stage4": (8, 10), "decoder1": (16, 20),
             "decoder2": (32, 40), "decoder3": (64, 80), "decoder4": (128, 160), "logits": (128, 160)}
    assert {tap: tuple(seen[tap].shape[2:]) for tap in sizes} == sizes
    assert [seen[f"stage{n}"].shape[1] for n in range(1, 5)] == [64, 128, 256, 512]


@pytest.mark.parametrize("name", ["pspnet_resnet18", "sparse_to_dense_tiny"])
def test_stages_are_after_the_activation_and_pre_before_it(name, read):
    seen = read(made(name).train(), torch.rand(2, 3, 64, 64))
    for number in range(1, 5):
        assert torch.equal(seen[f"stage{number}"], F.relu(seen[f"stage{number}.pre"]))
        assert seen[f"stage{number}.pre"].min() < 0


def test_published_map_of_psp_is_65_a_side(read):
    assert read(made("pspnet_tiny", 19), torch.rand(1, 3, 512, 512))["logits"].shape == (1, 19, 65, 65)


@pytest.mark.parametrize("name", ["pspnet_tiny", "pspnet_mobilenetv2", "deeplabv3_mobilenetv2", "sparse_to_dense_tiny"])
def test_a_single_image_trains(name):
    network = made(name).train()
    network(torch.rand(1, 3, 64, 64)).sum().backward()
    grids = [m for path, m in network.named_modules() if path in ("pspmodule.stages.0.2", "classifier.0.convs.4.2")]
    assert all(int(grid.num_batches_tracked) == 0 for grid in grids)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_auxiliary_taps_are_taps(name):
    with torch.device("meta"):
        network = build(name, 5)
    assert set(network.auxiliary) <= set(network.taps)
    assert network.auxiliary == {"aux": 0.5 if name.startswith("deeplab") else 0.4}


def test_unpooling_puts_values_at_the_top_left():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(Unpool()(x), unpool(x))


def test_networks_of_dense_tasks_take_further_channels_and_classifiers_do_not():
    assert made("pspnet_mobilenetv2", channels=4)(torch.rand(1, 4, 64, 64)).shape == (1, 5, 8, 8)
    with pytest.raises(Mistake, match=r"resnet20 takes images of 3 channels; these have 4\. Of the zoo"):
        build("resnet20", 10, 4)
