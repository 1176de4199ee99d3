"""OFD: margins from norms or from images, and a distance blind where a ReLU would hide it."""

from __future__ import annotations

import pytest
import torch
from features_tiny import convolved, features, normed, parameters, total, weights_of
from methods_tiny import ce, setting
from torch import nn

from limbeck.config import Job
from limbeck.contract.trial import SIZE, batch, tiny
from limbeck.errors import Mistake
from limbeck.jobs.parts import Parts
from limbeck.members import STATISTICS, Network
from limbeck.methods.ofd import margins, ofd
from limbeck.networks.resnet import resnet8
from limbeck.networks.wrn import wrn_16_1
from limbeck.progress import Display
from limbeck.seen import Seen
from limbeck.training import engine

BEFORE = ["stage1.pre", "stage2.pre", "stage3.pre"]


def zoo(build=resnet8) -> Network:
    """A network of the zoo whose norms differ from channel to channel."""
    module = build(4)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return Network(module, name="zoo", size=SIZE, statistics=STATISTICS["identity"])


def expected_negative(weight: float, bias: float) -> float:
    """E[x | x < 0] for x ~ N(bias, weight^2), by a sum over a grid; -3 |weight| where x < 0 is rare."""
    normal = torch.distributions.Normal(torch.tensor(bias, dtype=torch.float64), abs(weight))
    if normal.cdf(torch.tensor(0.0, dtype=torch.float64)) <= 1e-3:
        return -3 * abs(weight)
    x = torch.linspace(bias - 12 * abs(weight), 0, 400_001, dtype=torch.float64)
    density = normal.log_prob(x).exp()
    return ((x * density).sum() / density.sum()).item()


@pytest.mark.parametrize(("build", "last"), [(resnet8, "layer3.0.bn2"), (wrn_16_1, "bn1")])
def test_margins_of_zoo_networks_are_those_of_the_norms_before_their_relus(build, last):
    network = zoo(build)
    found = margins(network, BEFORE, batch(2), "auto")
    norm = network.module.get_submodule(last)
    expected = [expected_negative(w, b) for w, b in zip(norm.weight.tolist()[:8], norm.bias.tolist()[:8], strict=True)]
    assert found[-1][:8].tolist() == pytest.approx(expected, rel=2e-3, abs=1e-4)
    assert [len(margin) for margin in found] == [16, 32, 64]
    assert [len(margin) for margin in margins(network, BEFORE[1:], batch(2), "norms")] == [32, 64]


def test_margins_can_be_measured_on_images():
    network, images = tiny(12, seed=1).eval(), batch(3)
    with torch.no_grad():
        network.module.stages[2][1].bias[0] = 50.0  # a channel that is never negative
    found = margins(network, BEFORE, images, "auto")
    with torch.no_grad():
        maps = network.read(images.images)
    for margin, tap in zip(found, BEFORE, strict=True):
        for c, channel in enumerate(maps[tap].unbind(1)):
            below = channel[channel < 0]
            value = below.mean() if len(below) > 0.001 * channel.numel() else -3 * channel.std(correction=0)
            torch.testing.assert_close(margin[c], value, rtol=1e-4, atol=1e-5)
    assert found[2][0] == pytest.approx(-3 * maps["stage3.pre"][:, 0].std(correction=0).item(), rel=1e-4)


def test_measuring_leaves_the_teacher_as_it_was():
    network = tiny(12, seed=1).train()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    margins(network, BEFORE, batch(3), "sample")
    assert network.module.training
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_a_sample_can_be_preferred_and_norms_demanded():
    network = zoo()
    by_norms, by_sample = margins(network, BEFORE, batch(3), "norms"), margins(network, BEFORE, batch(3), "sample")
    assert not torch.allclose(by_norms[0], by_sample[0])
    with pytest.raises(Mistake, match=r"needs? a teacher that names them in `norm_before_relu`; tiny12 does not\. Set"):
        ofd(tiny(), tiny(12), setting(), margins_of="norms")


def test_total_is_the_task_and_the_partial_distances_deepening():
    student, teacher = tiny(), tiny(12, seed=1)
    method = ofd(student, teacher, setting())
    known = features(student, teacher, BEFORE)
    found, expected = total(method, known), ce(known["student"]["logits"])
    for i, tap in enumerate(BEFORE):
        term = method.terms[tap.removesuffix(".pre")]
        s = normed(convolved(known["student"][tap], term.connect[1]))
        t = known["teacher"][tap].maximum(term.distance.margin[None, :, None, None])
        counted = ((s > t) | (t > 0)).double()
        expected = expected + 1e-3 / 2 ** (2 - i) * ((s - t) ** 2 * counted).sum((1, 2, 3)).mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_connectors_are_projections_and_margins_are_saved():
    method = ofd(tiny(), tiny(12), setting(), weight=1.0)
    assert weights_of(method) == {"ce": 1.0, "stage1": 0.25, "stage2": 0.5, "stage3": 1.0}
    assert [parameters(method.terms[f"stage{i}"]) for i in (1, 2, 3)] == [8 * 12 + 24, 8 * 12 + 24, 16 * 24 + 48]
    assert "terms.stage1.distance.margin" in method.state_dict()


def test_batch_statistics_are_asked_for_by_name():
    outputs = []
    for option in (False, True):
        method = ofd(tiny(), tiny(12), setting(), batch_statistics=option)
        outputs.append(method.frozen["teacher"](Seen(batch(), None, {}))["stage3.pre"])
    assert outputs[1].mean((0, 2, 3)).abs().max() < 1e-5
    assert outputs[0].mean((0, 2, 3)).abs().max() > 1e-3


@pytest.mark.parametrize("option", [False, True])
def test_a_run_that_says_nothing_of_batch_statistics_leaves_the_methods_choice(option):
    job = Job(data={"source": "digits"}, student="digits_small", teacher="digits_large",
              method={"name": "ofd", "batch_statistics": option})
    stages = Parts("distill", job, engine.start("cpu"), Display(quiet=True)).stages
    assert stages[0].method.frozen["teacher"].batch_statistics is option
