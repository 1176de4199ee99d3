"""Names of networks, and the mistakes one can make with them."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from limbeck.errors import Mistake
from limbeck.networks import ZOO, build, find


@pytest.mark.parametrize(("published", "name"), [
    ("ResNet50", "resnet50"), ("MobileNetV2", "mobilenetv2"), ("ShuffleV1", "shufflev1"), ("ShuffleV2", "shufflev2"),
    ("ShuffleNetV2", "shufflev2"), ("WRN_40_2", "wrn_40_2"), ("resnet20", "resnet20")])
def test_published_names_find_their_network(published, name):
    assert find(published) is ZOO[name]


def test_an_unknown_name_gets_its_nearest():
    with pytest.raises(Mistake, match=r"got 'wrn_40_3', which it does not have; closest: \['wrn_40_2'"):
        build("wrn_40_3", 10)


def test_a_network_needs_classes():
    with pytest.raises(Mistake, match=r"at least 1 class; got num_classes=0 for resnet20\. Give"):
        build("resnet20", 0)


def test_the_list_of_names_needs_no_torch():
    code = "import sys, limbeck.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_follow_the_seed():
    torch.manual_seed(3)
    first = build("resnet8", 10).state_dict()
    torch.manual_seed(3)
    second = build("resnet8", 10).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_copies_and_slices_are_networks_too():
    network = build("digits_small", 10)
    images = torch.rand(2, 3, 8, 8)
    network.eval()
    assert torch.equal(copy.deepcopy(network)(images), network(images))
    assert copy.deepcopy(network).taps == network.taps
    assert torch.equal(network[:1](images), network.stem(images))


def test_digits_are_learned_in_seconds():
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images = (torch.tensor(digits.images, dtype=torch.float32) / 16)[:, None].expand(-1, 3, -1, -1)
    labels = torch.tensor(digits.target)
    network = build("digits_small", 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        for batch in torch.randperm(1400).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[1400:]).argmax(1) == labels[1400:]).float().mean()
    assert accuracy > 0.85
