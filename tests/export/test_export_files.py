"""Files that ship: what is in them, that they answer as the network does, and that they are refused if not."""

from __future__ import annotations

import json
from functools import cache
from importlib import util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from export_tiny import STATISTICS, OneImage, by_layer, classifier, images, mapper, network, shipment
from safetensors import safe_open

from limbeck.errors import Mistake
from limbeck.export.checking import largest_difference
from limbeck.export.formats import FORMATS, formats, onnx_session
from limbeck.export.latency import LEAST, latencies
from limbeck.export.quantised import quantised
from limbeck.export.shipment import Answering, Shipment, described
from limbeck.members import Network
from limbeck.networks import build


def ready(name: str) -> None:
    for package in FORMATS[name].packages:
        pytest.importorskip(package, reason=f"{name} files need it; pip install 'limbeck[export]'")


@cache
def shipped(what: str) -> Shipment:
    """A classifier that looks at 8 x 8 pixels and gets 20 x 14; one that normalises by layer; one that answers maps."""
    return {"resized": lambda: shipment(network(resize=True), (3, 20, 14)),
            "by-layer": lambda: shipment(network(by_layer)),
            "dense": lambda: shipment(network(mapper), task="segmentation")}[what]()


@cache
def content(what: str, name: str) -> bytes:
    """A file's bytes; made once, as the exporter of ONNX takes seconds."""
    return FORMATS[name].content(shipped(what))


# --- what ships


def test_normalisation_resizing_and_the_choice_of_logits_are_inside() -> None:
    made = network(resize=True, places=(2, 0))
    answering, batch = Answering(made), images(3, 12)
    small = F.interpolate(batch, (8, 8), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (STATISTICS.mean, STATISTICS.std))
    expected = made.module((small - mean) / std)[:, [2, 0]]
    torch.testing.assert_close(answering(batch), expected, rtol=0, atol=1e-6)


def test_maps_come_at_the_images_size() -> None:
    made, batch = network(mapper), images(2)
    expected = F.interpolate(made.logits(batch), (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Answering(made)(batch), expected)


def test_hooks_and_training_mode_stay_behind() -> None:
    made = network()
    made.tap(["0"])
    answering = Answering(made.train())
    assert not any(part.training for part in answering.modules())
    assert not any(part._forward_hooks for part in answering.modules())
    assert made.module.training
    assert made.module[0]._forward_hooks


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("what", ["resized", "dense"])
def test_every_file_answers_as_the_network_on_batches_of_any_size(name: str, what: str, tmp_path: Path) -> None:
    ready(name)
    ship, path = shipped(what), tmp_path / "file"
    path.write_bytes(content(what, name))
    batch = torch.rand(11, *ship.shape, generator=torch.Generator().manual_seed(2))
    answer = FORMATS[name].opened(path, ship)
    assert largest_difference(answer, ship.network, batch, "it") < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(answer(batch), ship.answering(batch), rtol=0, atol=1e-5)
    assert str(Path(__file__).parent).encode() not in content(what, name)  # traces of the machine that wrote it
    assert b"stack_trace" not in content(what, name)


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    for name in FORMATS:
        ready(name)
        (tmp_path / name).write_bytes(content("resized", name))
    with safe_open(tmp_path / "safetensors", "pt") as file:
        noted = [file.metadata()["limbeck"]]
    extra = {"limbeck": ""}
    torch.export.load(str(tmp_path.joinpath("pt2").rename(tmp_path / "it.pt2")), extra_files=extra)
    import onnx

    (entry,) = onnx.load(tmp_path / "onnx").metadata_props
    for text in (*noted, extra["limbeck"], entry.value):
        said = json.loads(text)
        assert said["input"]["shape"] == ["batch", 3, 20, 14]
        assert (said["size"], said["resize"], said["mean"]) == ([3, 8, 8], True, [0.5, 0.4, 0.3])
        assert (said["classes"], said["output"]["shape"]) == (["a", "b", "c", "d"], ["batch", 4])


def test_plain_weights_hold_what_the_module_holds_and_nothing_else() -> None:
    from safetensors.torch import load

    classifier().load_state_dict(load(content("resized", "safetensors")), strict=True)


@pytest.mark.parametrize("name", [
    "timm:test_resnet", "timm:test_vit", "distilled:timm:test_vit", "torchvision:squeezenet1_1",
    "torchvision:lraspp_mobilenet_v3_large", "digits_small", "pspnet_tiny", "py:export_tiny:large"])
def test_the_line_that_builds_a_network_builds_it(name: str) -> None:
    import export_tiny
    import timm
    import torchvision

    import limbeck.networks.distilled
    from limbeck.sources import untrained

    made = untrained(name, 64, classes=3).eval()
    line = described(made, (3, 64, 64), "it", ())["build"]
    known = {"timm": timm, "torchvision": torchvision, "limbeck": limbeck, "export_tiny": export_tiny}
    eval(line, known).load_state_dict(made.module.state_dict(), strict=True)


def test_a_network_of_hugging_face_is_built_by_a_line(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="it needs the package: pip install 'limbeck[hf]'")
    from limbeck.sources.origins import origin_of

    transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                           image_size=16, patch_size=4).save_pretrained(tmp_path)
    found = origin_of(f"hf:{tmp_path}", 3, 32)
    eval(str(found.line)).load_state_dict(found.build().state_dict(), strict=True)


def test_a_function_in_a_file_has_no_line(tmp_path: Path) -> None:
    from limbeck.sources.origins import origin_of

    (tmp_path / "mine.py").write_text("def net(num_classes):\n    pass\n")
    assert origin_of(f"py:{tmp_path / 'mine.py'}:net", 3).line is None


def test_further_channels_are_built_and_told() -> None:
    made = Network(build("sparse_to_dense_tiny", 1, 4), name="sparse_to_dense_tiny", size=(4, 32, 32),
                   statistics=type(STATISTICS)((0.0,) * 4, (1.0,) * 4)).eval()
    said = described(made, (4, 32, 32), "depth", ())
    assert said["build"] == "limbeck.networks.build('sparse_to_dense_tiny', 1, 4)"
    assert said["output"]["shape"] == ["batch", 1, 32, 32]
    assert "then depth in metres" in said["input"]["values"]


def test_a_transformer_with_a_distillation_token_ships_for_any_number_of_images() -> None:
    from limbeck.sources import untrained

    made = untrained("distilled:timm:test_vit", 32, classes=3).eval()
    graph = Shipment(made, (3, 32, 32), {}).graph.module()
    assert largest_difference(graph, made, images(8, 32), "it") < 1e-5


# --- what is refused


@pytest.mark.parametrize(("wrong", "said"), [
    (lambda answer, x: answer(x) + 1e-3, r"differ by up to 0\.001"),
    (lambda answer, x: answer(x) * float("nan"), "differ by up to nan"),
    (lambda answer, x: answer(x)[:, :3], r"answer to 1 images is \(1, 3\), the network's \(1, 4\)"),
    (lambda answer, x: answer(x if len(x) < 8 else x[:, 0]), "fails at 8: .*It was not kept")])
def test_a_file_that_answers_otherwise_is_refused(wrong, said: str) -> None:
    made = network()
    with pytest.raises(Mistake, match=said):
        largest_difference(lambda x: wrong(made.logits, x), made, images(), "it")


def test_the_normalisation_is_part_of_what_is_checked() -> None:
    made = network()
    with pytest.raises(Mistake, match="differ by"):
        largest_difference(made.module, made, images(), "it")


def test_a_network_for_one_number_of_images_cannot_be_a_graph() -> None:
    ship = shipment(network(OneImage))
    with pytest.raises(Mistake, match=r"tiny as one graph for any number of images; .*--to safetensors"):
        FORMATS["pt2"].content(ship)
    assert FORMATS["safetensors"].content(ship)


def test_unknown_formats_are_answered_with_the_nearest() -> None:
    assert [one.name for one in formats("pt2, safetensors,pt2")] == ["pt2", "safetensors"]
    with pytest.raises(Mistake, match=r"no format 'onxx' to export to; closest: \['onnx'\]"):
        formats("pt2,onxx")
    with pytest.raises(Mistake, match="--to needs formats"):
        formats(" ")


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    FORMATS["pt2"].check()
    FORMATS["safetensors"].check()
    with pytest.raises(Mistake, match=r"need onnx, onnxscript, onnxruntime.* pip install 'limbeck\[export\]'"):
        FORMATS["onnx"].check()


# --- int8 and latency


@pytest.mark.parametrize(("what", "how"), [("resized", "QuantizeLinear"), ("by-layer", "DynamicQuantizeLinear")])
def test_int8_is_smaller_and_answers_nearly_the_same(what: str, how: str, tmp_path: Path) -> None:
    ready("onnx")
    import onnx

    ship = shipped(what)
    batch = torch.rand(64, *ship.shape, generator=torch.Generator().manual_seed(3))
    small = quantised(content(what, "onnx"), batch.split(8))
    model = onnx.load_model_from_string(small)
    assert how in {node.op_type for node in model.graph.node}
    heavy = [one for one in model.graph.initializer if len(one.dims) > 1]
    assert {one.data_type for one in heavy if min(one.dims) > 3} == {onnx.TensorProto.INT8}
    (tmp_path / "int8.onnx").write_bytes(small)
    expected = ship.answering(batch).detach()
    error = onnx_session(tmp_path / "int8.onnx")(batch) - expected
    assert 0 < error.std() < 0.1 * expected.std()


def test_latencies_take_turns_and_come_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    def takes(name: str, seconds: float):
        def answer(image):
            order.append(name)
            clock[0] += seconds
            return image
        return answer

    monkeypatch.setattr("limbeck.export.latency.time.perf_counter", lambda: clock[0])
    found = latencies({"a": takes("a", 0.5), "b": takes("b", 2.0)}, images(1))
    assert found == {"a": pytest.approx(500), "b": pytest.approx(2000)}
    assert order == ["a", "a", "b", "b"] * (1 + max(LEAST, 6))
