"""Any layer of any network can be read, and reading leaves no trace in it."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import timm
import torch
from core_tiny import Plain, Residual, sequential
from torch import Tensor, nn
from torch.func import functional_call, jvp

from limbeck.errors import Mistake
from limbeck.taps import Address, Reader, clean_copy
from limbeck.taps.calls import first_tensor, still

DUMMY = torch.zeros(1, 3, 16, 16)


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


# --- addresses


@pytest.mark.parametrize(("text", "address"), [
    ("layer1.0.relu", Address("layer1.0.relu")), ("fc:in", Address("fc", "in")), ("relu#2", Address("relu", call=2)),
    ("layer4.1.relu:in#12", Address("layer4.1.relu", "in", 12)), ("", Address(""))])
def test_an_address_is_a_path_a_side_and_a_call(text, address):
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["relu#0", "relu#2:in", "relu:out", "relu#", "fc:in:in"])
def test_other_forms_are_refused(text):
    with pytest.raises(Mistake, match=f"PATH, PATH:in or PATH#2; got '{text}'"):
        Address.parse(text)


def test_the_first_tensor_may_lie_deep():
    x = torch.ones(1)
    for value in (x, (None, x, 2), [{"a": 3, "b": [x]}], {"out": x}):
        assert first_tensor(value) is x
    assert first_tensor(({}, None, "text")) is None


# --- reading


def test_inputs_outputs_and_later_calls_are_read():
    module, x = Residual(), torch.randn(2, 3, 16, 16)
    taps = {"block": "layer1.0", "sum": "layer1.0.relu:in#2", "inner": "layer1.0.relu", "pooled": "fc:in",
            "image": ":in"}
    outputs = Reader(module, taps, DUMMY)(x)
    block = module.layer1[0]
    with torch.no_grad():
        stem = module.relu(module.bn1(module.conv1(x)))
        inner = block.relu(block.bn1(block.conv1(stem)))
        total = block.bn2(block.conv2(inner)) + block.beside(stem)
    torch.testing.assert_close(outputs["inner"], inner)
    torch.testing.assert_close(outputs["sum"], total)
    torch.testing.assert_close(outputs["block"], total.relu())
    torch.testing.assert_close(module.fc(outputs["pooled"]), outputs["logits"])
    assert outputs["image"] is x
    assert outputs.keys() == {*taps, "logits"}


def test_shapes_come_from_the_trial_pass():
    reader = Reader(Plain(), {"a": "stage1", "b": "stage2.norm", "pooled": "fc:in"}, DUMMY)
    assert reader.shapes == {"a": (8, 16, 16), "b": (8, 8, 8), "pooled": (8,), "logits": (3,)}


def test_every_layer_can_be_tapped_at_once_and_reads_what_it_returned():
    module, x = timm.create_model("resnet18", num_classes=3).eval(), torch.randn(2, 3, 32, 32)
    found: dict[str, list[Tensor]] = {}
    handles = [m.register_forward_hook(lambda m, args, out, name=name: found.setdefault(name, []).append(out.clone()))
               for name, m in module.named_modules()]
    with torch.no_grad():
        logits = module(x)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        outputs = Reader(module, {name: name for name in found}, x[:1])(x)
    assert len(found) > 60
    assert [name for name, tensors in found.items() if not torch.equal(outputs[name], tensors[0])] == []
    assert torch.equal(outputs["logits"], logits)


def test_overwritten_taps_are_cloned_and_others_are_not():
    """bn1 is overwritten by the ReLU in place, bn2 by the sum and then the ReLU; convolutions are not."""
    reader = Reader(Residual(), {name: f"layer1.0.{name}" for name in ("conv1", "bn1", "bn2", "relu")}, DUMMY)
    assert {c.tap for c in reader._captures if c.overwritten} == {"bn1", "bn2"}
    outputs = reader(torch.randn(2, 3, 16, 16))
    assert outputs["bn1"].min() < 0
    assert outputs["bn2"].min() < 0


class DropsInPlace(nn.Module):
    """Overwrites its features in place, but only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.drop, self.fc = nn.Linear(4, 8), nn.Dropout(0.5, inplace=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.features(x)))


def test_dropout_in_place_does_not_overwrite_a_tap():
    module, x = DropsInPlace().train(), torch.randn(6, 4)
    outputs = Reader(module, {"features": "features"}, x[:1])(x)
    assert torch.equal(outputs["features"], module.features(x))


def test_gradients_flow_back_from_a_tap():
    module = Residual()
    outputs = Reader(module, {"sum": "layer1.0.relu:in#2"}, DUMMY)(torch.randn(2, 3, 16, 16))
    outputs["sum"].square().mean().backward()
    assert module.conv1.weight.grad.abs().sum() > 0
    assert module.layer2[0].conv1.weight.grad is None


def test_two_passes_do_not_mix():
    reader, x = Reader(Plain().eval(), {"a": "stage1"}, DUMMY), torch.randn(2, 3, 16, 16)
    first = reader(x)
    kept = first["a"].clone()
    second = reader(2 * x)
    assert torch.equal(first["a"], kept)
    assert not torch.equal(second["a"], kept)


# --- mistakes


@pytest.mark.parametrize(("tap", "message"), [
    ("stage1.nrm", r"Plain has no layer 'stage1\.nrm'; closest: \['stage1\.norm'"),
    ("zzz", r"Plain has no layer 'zzz'; there is \['', 'stage1'"),
    ("fc#2", r"layer 'fc#2' of Plain ran 1 time\(s\) .* no tensor at call 2"),
])
def test_a_wrong_layer_is_a_mistake_and_leaves_no_hook(tap, message):
    module = Plain()
    with pytest.raises(Mistake, match=message):
        Reader(module, {"good": "stage1", "bad": tap}, DUMMY)
    assert hooks(module) == 0


def test_a_layer_that_does_not_run_or_returns_no_tensor_is_a_mistake():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.fc, self.text = nn.Linear(4, 4), nn.Linear(4, 3), Text()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + len(self.text(x))

    class Text(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "text"

    for tap, runs in (("idle", 0), ("text", 1)):
        with pytest.raises(Mistake, match=rf"layer '{tap}' of Odd ran {runs} time\(s\) .* name a layer that runs"):
            Reader(module := Odd(), {"tap": tap}, torch.zeros(1, 4))
        assert hooks(module) == 0


def test_a_network_without_logits_is_a_mistake():
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(Mistake, match="Nothing must return a tensor of logits"):
        Reader(Nothing(), {}, DUMMY)


def test_a_network_that_breaks_on_the_trial_image_keeps_no_hook():
    module = Plain()
    with pytest.raises(RuntimeError, match="channels"):
        Reader(module, {"a": "stage1"}, torch.zeros(1, 4, 16, 16))
    assert hooks(module) == 0


# --- no trace


def test_the_trial_pass_touches_no_statistics_and_no_mode():
    module = Plain(dropout=0.5)
    module.stage2.eval()
    modes, before = {name: m.training for name, m in module.named_modules()}, buffers(module)
    random = torch.get_rng_state()
    Reader(module, {"a": "stage1"}, DUMMY)
    assert {name: m.training for name, m in module.named_modules()} == modes
    assert all(torch.equal(b, before[name]) for name, b in module.named_buffers())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_training_pass_updates_statistics_once():
    module = Plain()
    Reader(module, {"pre": "stage1.norm", "a": "stage1"}, DUMMY)(torch.randn(2, 3, 16, 16))
    assert module.stage1.norm.num_batches_tracked == 1


def test_still_restores_modes_after_an_error():
    module = Plain().train()
    with still(module):
        assert not module.stage1.norm.training
        assert not torch.is_grad_enabled()
    assert module.stage1.norm.training
    with pytest.raises(RuntimeError, match="channels"), still(module):
        module(torch.zeros(1, 4, 16, 16))
    assert all(m.training for m in module.modules())
    assert torch.is_grad_enabled()


def test_removed_hooks_are_gone_and_others_stay():
    module = Residual()
    foreign = module.fc.register_forward_hook(lambda *_: None)
    reader = Reader(module, {"a": "layer1", "b": "fc:in", "c": "fc"}, DUMMY)
    assert hooks(module) == 4
    reader.remove()
    assert hooks(module) == 1
    assert foreign.id in module.fc._forward_hooks


def test_a_clean_copy_has_our_hooks_no_more_and_its_weights_load_anywhere():
    module = sequential()
    module.classifier.register_forward_hook(foreign_hook)
    reader, x = Reader(module, {"a": "features.1", "pooled": "classifier:in"}, DUMMY), torch.randn(2, 3, 16, 16)
    outputs = reader(x)
    twin = clean_copy(module)
    assert hooks(twin) == 1
    assert hooks(module) == 3
    fresh = sequential()
    fresh.load_state_dict(twin.state_dict())
    assert torch.equal(fresh(x), outputs["logits"])
    with torch.no_grad():
        twin.classifier.weight.zero_()
    assert torch.equal(reader(x)["logits"], outputs["logits"])


def foreign_hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    """A hook of someone else's."""


def test_a_clean_copy_can_be_made_after_a_pass_that_broke():
    module = Plain()
    reader = Reader(module, {"a": "stage1"}, DUMMY)
    handle = module.fc.register_forward_pre_hook(breaks)
    with pytest.raises(RuntimeError, match="broke"):
        reader(torch.randn(2, 3, 16, 16))
    handle.remove()
    assert hooks(clean_copy(module)) == 0


def breaks(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    raise RuntimeError("broke")


# --- what else may be done with a tapped module


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch scripts its own decompositions
def test_other_parameters_can_be_called_with_and_differentiated_forward(double):
    module = Residual().eval()
    reader, x = Reader(module, {"sum": "layer1.0.relu:in#2"}, torch.zeros(1, 3, 16, 16)), torch.randn(2, 3, 16, 16)
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    directions = {name: torch.randn_like(p) for name, p in parameters.items()}

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return reader(x)["sum"]

    def read(values: dict[str, Tensor]) -> Tensor:
        return functional_call(Read(), {f"module.{name}": v for name, v in values.items()}, (x,))

    value, tangent = jvp(read, (parameters,), (directions,))
    reach = 1e-6
    ahead, behind = (read({name: p + side * reach * directions[name] for name, p in parameters.items()})
                     for side in (1, -1))
    assert torch.equal(value, reader(x)["sum"])
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * reach), rtol=1e-6, atol=1e-7)


def test_a_deep_copy_reads_itself():
    reader, x = Reader(Residual().eval(), {"a": "layer1.0.bn1"}, DUMMY), torch.randn(2, 3, 16, 16)
    twin = copy.deepcopy(reader)
    with torch.no_grad():
        reader.module.layer1[0].bn1.bias.add_(1)
    assert not torch.equal(reader(x)["a"], twin(x)["a"])
    twin.remove()
    assert (hooks(twin.module), hooks(reader.module)) == (0, 1)
    assert "a" in reader(x)


def test_a_tapped_module_pickles():
    module, x = Residual().eval(), torch.randn(2, 3, 16, 16)
    reader = Reader(module, {"a": "layer1.0.bn1"}, DUMMY)
    again = pickle.loads(pickle.dumps(module))
    assert torch.equal(again(x), reader(x)["logits"])
    file = io.BytesIO()
    torch.save(reader, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x)["a"], reader(x)["a"])
