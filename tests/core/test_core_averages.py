"""Running means by name."""

from __future__ import annotations

import io

import pytest
import torch

from limbeck.training.averages import Averages


def filled() -> Averages:
    averages = Averages()
    for step in range(4):
        averages.add({"ce": torch.tensor(float(step)), **({"kl": torch.tensor(10.0)} if step else {})})
    return averages


def test_means_are_over_the_steps_in_which_a_name_appeared():
    assert filled().means() == {"ce": 1.5, "kl": 10.0}


def test_nothing_is_nothing():
    averages = filled()
    averages.reset()
    assert averages.means() == {}
    averages.add({"ce": torch.tensor(3.0)})
    assert averages.means() == {"ce": 3.0}
    assert Averages().means() == {}


def test_no_graph_and_no_value_of_the_callers_is_kept():
    averages, value = Averages(), torch.tensor(2.0, requires_grad=True)
    loss = value * 3
    averages.add({"ce": loss})
    with torch.no_grad():
        loss.zero_()  # whoever owns it may reuse it
    averages.add({"ce": value * 0})
    assert averages.means() == {"ce": 3.0}
    assert not any(s.requires_grad for s in averages.state_dict()["sums"].values())


def test_a_number_that_is_none_shows():
    averages = filled()
    averages.add({"ce": torch.tensor(float("nan"))})
    means = averages.means()
    assert means["ce"] != means["ce"]
    assert means["kl"] == 10


def test_means_go_on_from_a_checkpoint():
    averages, file = filled(), io.BytesIO()
    torch.save(averages.state_dict(), file)
    file.seek(0)
    again = Averages()
    again.load_state_dict(torch.load(file, weights_only=True), torch.device("cpu"))
    for one in (averages, again):
        one.add({"ce": torch.tensor(5.0)})
    assert again.means() == averages.means() == {"ce": pytest.approx(2.2), "kl": 10}
