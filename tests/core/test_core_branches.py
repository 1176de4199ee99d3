"""What follows a layer of any network makes the same logits of the layer's tensor; what cannot be parted is told."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from limbeck.contract.trial import batch, tiny
from limbeck.errors import Mistake
from limbeck.members import STATISTICS, Network
from limbeck.members.branches import Branch, after, branch_point
from limbeck.networks import build
from limbeck.seen import Clock, Seen


def network(module: nn.Module, side: int = 16, name: str = "mine") -> Network:
    return Network(module, name=name, size=(3, side, side), statistics=STATISTICS["identity"])


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(16, 4, 3, 2, 8, 16, num_classes=5)


def timm_vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, depth=4, embed_dim=8, num_heads=2,
                             num_classes=5)


MAKES = {
    "resnet8": lambda: build("resnet8", num_classes=5), "wrn_16_1": lambda: build("wrn_16_1", num_classes=5),
    "vgg8": lambda: build("vgg8", num_classes=5), "mobilenetv2": lambda: build("mobilenetv2", num_classes=5),
    "densenet_40_12": lambda: build("densenet_40_12", num_classes=5),
    "shufflev2": lambda: build("shufflev2", num_classes=5), "torchvision vit": vit, "timm vit": timm_vit,
    "timm resnet": lambda: timm.create_model("resnet10t", num_classes=5),
}


@pytest.mark.parametrize("make", MAKES)
def test_the_rest_makes_the_networks_own_logits_of_the_layers_tensor(make: str) -> None:
    module = MAKES[make]().eval()
    parted = network(module)
    point = branch_point(parted, None)
    parted.tap([point])
    rest = after(module, parted.resolve(point)).eval()
    module.eval()
    with torch.no_grad():
        whole = parted.read(torch.rand(2, 3, 16, 16))
        assert torch.equal(rest(whole[point]), whole["logits"])
    own, theirs = module.state_dict(), rest.state_dict()
    assert all(theirs[key] is own[key] or torch.equal(theirs[key], own[key]) for key in theirs)
    assert 0 < len(theirs) < len(own)


class Twice(nn.Module):
    """One layer that runs twice, and a ReLU in place right behind."""

    def __init__(self, skip: str = ""):
        super().__init__()
        self.conv, self.relu, self.fc, self.skip = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Linear(3, 5), skip

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        first = self.conv(x)
        x = self.relu(self.conv(first) * scale)
        if self.skip == "past":
            x = x + first
        if self.skip == "images" and x.mean() > 0:
            x = x + 1
        if self.skip == "dropout":
            x = F.dropout(x, 0.5, self.training)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("address", ["conv#2", "relu:in", "fc:in", "conv"])
def test_calls_and_inputs_are_layers_too(address: str) -> None:
    parted = network(Twice())
    parted.tap([address])
    whole = parted.read(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(after(parted.module, address)(whole[address].clone()), whole["logits"])


@pytest.mark.parametrize(("skip", "address", "told"), [
    ("past", "conv#2", "all else passes through; conv of Twice is read behind 'conv#2' too"),
    ("images", "conv", "does not hang on the images; that of Twice cannot be traced"),
    ("dropout", "conv", "asks for self.training. Use nn.Dropout"),
    ("", "conv#3", r"'conv' of Twice ran 2 time\(s\) and is asked for at call 3"),
    ("", "nowhere", r"'nowhere' of Twice ran 0 time\(s\)")])
def test_what_cannot_be_parted_is_told(skip: str, address: str, told: str) -> None:
    with pytest.raises(Mistake, match=told):
        after(Twice(skip), address)


def test_a_network_of_one_stage_needs_a_layers_name() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    single = network(nn.Sequential(*layers))
    with pytest.raises(Mistake, match=r"mine has \['stage1'\]. Name a layer in `split`"):
        branch_point(single, None)
    assert branch_point(single, "1") == "1"


def seen(student: Network) -> Seen:
    return Seen(batch(), Clock(0, 1, 1), {"student": student})


def test_a_branch_has_weights_of_its_seed_and_the_layers_behind_alone() -> None:
    student = tiny()
    one, same, other = (Branch(student, "student.stage2", "stage2", seed=seed) for seed in (1, 1, 2))
    assert set(one.module.state_dict()) == {k for k in student.module.state_dict() if k.startswith(("stages.2", "fc"))}
    assert torch.equal(one.module.fc.weight, same.module.fc.weight)
    assert not torch.equal(one.module.fc.weight, other.module.fc.weight)
    assert not torch.equal(one.module.fc.weight, student.module.fc.weight)


def test_the_trunk_runs_once_and_feels_every_branch() -> None:
    student = tiny()
    branches = [Branch(student, "student.stage2", "stage2", seed=seed, taps=["stage3", "pooled"]) for seed in (1, 2)]
    student.tap(["stage2"])
    runs: list[int] = []
    student.module.stem.register_forward_hook(lambda *_: runs.append(1))
    now = seen(student)
    outputs = [branch(now) for branch in branches]
    assert runs == [1]
    for branch, output in zip(branches, outputs, strict=True):
        assert {tap: tuple(x.shape[1:]) for tap, x in output.items()} == {
            "logits": (4,), "stage3": (16, 4, 4), "pooled": (16,)}
        assert branch.shape("stage3") == (16, 4, 4)
        assert branch.stages == ("stage3",)
        slope, = torch.autograd.grad(output["logits"].sum(), student.module.stem[0].weight, retain_graph=True)
        assert slope.abs().sum() > 0


def test_a_branch_that_overwrites_its_input_is_given_a_copy() -> None:
    student = Network(Twice(), name="mine", size=(3, 8, 8), statistics=STATISTICS["identity"], factory=Twice)
    branch = Branch(student, "student.relu:in", "relu:in", seed=1)
    student.tap(["relu:in"])
    now = seen(student)
    before = now["student.relu:in"].clone()
    branch(now)
    assert before.min() < 0
    assert torch.equal(now["student.relu:in"], before)


def test_branches_can_be_copied_and_keep_their_taps() -> None:
    branch = Branch(tiny(), "student.stage2", "stage2", seed=1, taps=["stage3"])
    twin, student = copy.deepcopy(branch), tiny(seed=4)
    student.tap(["stage2"])
    now = seen(student)
    with torch.no_grad():
        twin.module.fc.weight.zero_()
    torch.testing.assert_close(twin(now)["stage3"], branch(now)["stage3"])
    assert not torch.equal(twin(now)["logits"], branch(now)["logits"])


def test_without_a_factory_there_are_no_branches() -> None:
    finished = network(Twice())
    with pytest.raises(Mistake, match="untrained copy of mine is needed"):
        Branch(finished, "student.conv", "conv", seed=1)
