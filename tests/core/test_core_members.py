"""Networks as members: normalised for themselves, tapped by name, frozen, lent, copied."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from core_tiny import Plain, Residual, Tokens, batch, clock, network
from torch import Tensor, nn

from limbeck.errors import Mistake
from limbeck.members import STATISTICS, Frozen, Look, Member, Network, Statistics, lend
from limbeck.seen import Seen


def seen(seed: int = 0, *, size: int = 16) -> Seen:
    return Seen(batch(seed, size=size), clock(), {})


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in module.state_dict().items()}


def same(before: dict[str, Tensor], module: nn.Module) -> bool:
    return all(torch.equal(x, before[name]) for name, x in module.state_dict().items())


# --- input statistics


def test_images_are_normalised_channel_by_channel():
    member, images = network(Plain()), batch().images
    mean, std = torch.tensor([0.5071, 0.4867, 0.4408]), torch.tensor([0.2675, 0.2565, 0.2761])
    expected = (images - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(member.normalise(images), expected)
    torch.testing.assert_close(member.logits(images), member.module(expected))


def test_images_of_another_size_are_resized_only_where_asked():
    images, member = batch(size=24).images, network(Plain(), resize=True)
    expected = F.interpolate(images, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(member.normalise(images) * member.std + member.mean, expected)
    assert network(Plain()).normalise(images).shape == (5, 3, 24, 24)
    fitting = images[..., :16, :16]
    torch.testing.assert_close(member.normalise(fitting), network(Plain()).normalise(fitting))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5,), (0.0,)), ((0.5, 0.5), (0.2, -1.0))])
def test_statistics_that_fit_no_channel_are_refused(mean, std):
    with pytest.raises(Mistake, match="one mean and one positive std per channel"):
        Statistics(mean, std)


def test_statistics_are_moved_and_not_saved():
    member = network(Plain()).to(torch.float64)
    assert member.mean.dtype == torch.float64
    assert not {"mean", "std"} & member.state_dict().keys()
    assert all(0 < s <= 1 for known in STATISTICS.values() for s in known.std)


# --- taps


def test_a_network_reads_canonical_names_and_paths_together():
    member = network(Residual())
    member.tap(["stage1.pre", "layer2.0.bn1"])
    member.tap(["pooled", "stage1.pre", "logits"])
    outputs = member(seen())
    assert outputs.keys() == {"stage1.pre", "layer2.0.bn1", "pooled", "logits"}
    assert outputs["stage1.pre"].min() < 0
    assert member.num_classes == 3
    assert member.stages == ("stage1", "stage2")
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in member.module.modules()) == 3


def test_shapes_are_those_without_the_batch_and_asking_taps():
    member = network(Tokens())
    assert (member.shape("stage2"), member.shape("embed"), member.shape("pooled")) == ((8, 4, 4), (8, 4, 4), (8,))
    assert member(seen()).keys() == {"stage2", "embed", "pooled", "logits"}


def test_stages_are_in_the_order_of_their_numbers():
    module = Plain()
    module.taps = {f"stage{i}": "stage1" for i in (10, 2, 1)}
    assert network(module).stages == ("stage1", "stage2", "stage10")


@pytest.mark.parametrize(("tap", "message"), [
    ("stage3", r"tiny has no layer 'stage3'; closest: \['stage\d'"),
    ("layer1.0.bn", r"tiny has no layer 'layer1\.0\.bn'; closest: \['layer1\.0\.bn\d'"),
    ("bn1#2", r"layer 'bn1#2' of Residual ran 1 time"),
    ("bn1#0", r"named as PATH, PATH:in or PATH#2"),
])
def test_a_wrong_tap_is_a_mistake_and_the_right_ones_stay(tap, message):
    member = network(Residual())
    member.tap(["stage1"])
    with pytest.raises(Mistake, match=message):
        member.tap(["stage2", tap])
    assert member(seen()).keys() == {"stage1", "logits"}
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in member.module.modules()) == 1


def test_building_and_tapping_touch_neither_statistics_nor_modes():
    module = Residual()
    module.layer1.eval()
    before, modes = state(module), [m.training for m in module.modules()]
    member = network(module)
    member.tap(["stage1.pre", "pooled"])
    assert same(before, module)
    assert [m.training for m in module.modules()] == modes
    member.train()
    member(seen())
    assert module.bn1.num_batches_tracked == 1


# --- copies


def test_a_fresh_network_is_the_seeds_own_and_disturbs_no_one():
    imagenet = STATISTICS["imagenet"]
    member = Network(Plain(), name="tiny", size=(3, 16, 16), statistics=imagenet, resize=True, factory=Plain)
    before = torch.get_rng_state()
    one, again, other = member.fresh(3), member.fresh(3), member.fresh(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(one), again)
    assert not same(state(one), other)
    assert not same(state(one), member)
    assert (one.name, one.size, one.statistics, one.resize, one.factory) == ("tiny", (3, 16, 16), imagenet, True, Plain)


def test_a_fresh_network_leaves_the_gpus_random_state_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded"))
    network(Plain(), factory=Plain).fresh(3)


def test_a_finished_module_has_no_fresh_copy():
    with pytest.raises(Mistake, match=r"an untrained copy of tiny is needed.*Give Network a factory"):
        network(Plain()).fresh(0)


def test_what_is_deployed_is_a_plain_copy():
    member = network(Residual())
    member.tap(["stage1.pre"])
    plain, images = member.deployed(), batch().images
    assert type(plain) is Residual
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in plain.modules())
    Residual().load_state_dict(plain.state_dict())
    member.eval()
    assert torch.equal(plain.eval()(member.normalise(images)), member.logits(images))
    with torch.no_grad():
        plain.fc.weight.zero_()
    assert member.module.fc.weight.abs().sum() > 0


def test_scaffolding_is_not_deployed():
    with pytest.raises(Mistake, match="Member is not a network that can be deployed"):
        Member().deployed()
    with pytest.raises(TypeError, match="must define forward"):
        Member()(seen())


def test_a_deep_copy_of_a_member_reads_itself():
    member = network(Residual())
    member.tap(["stage1"])
    twin = copy.deepcopy(member)
    with torch.no_grad():
        twin.module.bn1.bias.add_(1)
    assert not torch.equal(twin(seen())["stage1"], member(seen())["stage1"])
    twin.tap(["stage2"])
    assert member(seen()).keys() == {"stage1", "logits"}


def test_the_fingerprint_is_of_weights_buffers_and_statistics():
    torch.manual_seed(1)
    member = network(Plain())
    first = member.fingerprint()
    assert len(first) == 16
    member.tap(["stage1"])
    member.eval()
    assert member.fingerprint() == first
    assert network(copy.deepcopy(member.module)).fingerprint() == first
    assert network(member.module, name="other").fingerprint() != first
    with torch.no_grad():
        member.module.fc.bias[2] += 1e-6
    second = member.fingerprint()
    assert second != first
    member.module.stage1.norm.running_mean[0] += 1
    assert member.fingerprint() not in (first, second)


def test_a_fingerprint_may_be_of_any_types():
    module = Plain().to(torch.bfloat16)
    module.register_buffer("mask", torch.tensor([True, False]))
    module.register_buffer("empty", torch.zeros(0))
    member = network(module)
    first = member.fingerprint()
    module.mask[1] = True
    assert member.fingerprint() != first


# --- frozen


def test_a_frozen_network_learns_nothing_and_stays_in_eval_mode():
    teacher = Frozen(network(Plain(dropout=0.5)))
    expected = teacher(seen())["logits"]
    for call in (teacher.train, teacher.network.train, teacher.network.module.train):
        call()
        before = state(teacher)
        outputs = teacher(seen())
        assert torch.equal(outputs["logits"], expected)
        assert not outputs["logits"].requires_grad
        assert same(before, teacher)
        assert not any(m.training for m in teacher.modules())


def test_a_frozen_network_under_batch_statistics_keeps_its_own():
    module = Plain(dropout=0.5)
    with torch.no_grad():
        module.stage1.norm.running_mean.fill_(0.3)
    teacher = Frozen(network(module), batch_statistics=True)
    before, fingerprint = state(teacher), teacher.network.fingerprint()
    plain = Plain()
    plain.load_state_dict(module.state_dict())
    expected = plain.train()(teacher.network.normalise(batch().images))  # without dropout
    for _ in range(3):
        torch.testing.assert_close(teacher(seen())["logits"], expected)
        teacher.train()
        teacher.network.module.train()
    assert same(before, teacher)
    assert teacher.network.fingerprint() == fingerprint


def test_batch_statistics_can_be_asked_for_later():
    teacher = Frozen(network(Plain()))
    own = teacher(seen())["logits"]
    teacher.batch_statistics = True
    teacher.train()
    of_the_batch = teacher(seen())["logits"]
    teacher.batch_statistics = False
    teacher.train()
    assert not torch.allclose(of_the_batch, own)
    assert torch.equal(teacher(seen())["logits"], own)


def test_a_network_that_was_frozen_under_batch_statistics_can_learn_again():
    teacher = Frozen(network(Plain()), batch_statistics=True)
    teacher(seen())
    norm = teacher.network.deployed().stage1.norm.train()
    norm(torch.randn(4, 8, 5, 5))
    assert norm.num_batches_tracked == 1
    assert norm.running_mean.abs().sum() > 0


# --- lent


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_lending_trains_nothing_and_leaves_buffers_and_modes(batch_statistics):
    module, images = Plain(), torch.randn(4, 3, 16, 16, requires_grad=True)
    module.stage1.eval()
    before, modes = state(module), [m.training for m in module.modules()]
    output = lend(module, images, batch_statistics=batch_statistics)
    output.sum().backward()
    twin = copy.deepcopy(module).train(batch_statistics)
    torch.testing.assert_close(output, twin(images))
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in module.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert same(before, module)
    assert [m.training for m in module.modules()] == modes


def test_lending_restores_modes_after_an_error_and_passes_whatever_is_given():
    module = nn.Bilinear(2, 3, 4)
    assert lend(module, torch.ones(1, 2), torch.ones(1, 3)).shape == (1, 4)
    broken = Plain().train()
    with pytest.raises(RuntimeError):
        lend(broken, torch.ones(1, 5, 16, 16))
    assert all(m.training for m in broken.modules())


def test_another_look_reads_its_view_and_owns_nothing():
    member, one = network(Plain()).eval(), batch()
    member.tap(["stage1"])
    look = Look(member, view=1)
    views = (torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16))
    outputs = look(Seen(replace(one, views=views), clock(), {}))
    assert torch.equal(outputs["logits"], member.logits(views[1]))
    assert outputs.keys() == {"stage1", "logits"}
    assert outputs["stage1"].requires_grad
    assert list(look.parameters()) == []
    assert look.state_dict() == {}


def test_a_network_may_look_at_a_view_of_its_own_in_training():
    member, one = network(Plain()), batch()
    views = (torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16))
    member.view = 1
    seen_now = Seen(replace(one, views=views), clock(), {})
    torch.testing.assert_close(member.train()(seen_now)["logits"], member.logits(views[1]))
    torch.testing.assert_close(Look(member, view=0)(seen_now)["logits"], member.logits(views[0]))
    torch.testing.assert_close(Frozen(member, view=0)(seen_now)["logits"], member.eval().logits(views[0]))
    torch.testing.assert_close(member(seen())["logits"], member.logits(one.images))
