"""Whose class is whose: names in another order, some of them, other names, and none that fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from core_tiny import Plain

from limbeck.config import NetworkSettings
from limbeck.errors import Mistake
from limbeck.members import Network, Statistics
from limbeck.sources.known import known_classes
from limbeck.sources.naming import BY_ORDER, match_classes

OWN = [("ant",), ("bee",), ("cow",), ("red_deer", "elk")]


def test_the_same_classes_in_the_same_order_are_left_alone() -> None:
    assert match_classes("t", OWN, ("ant", "bee", "cow", "elk")).places is None
    assert match_classes("t", OWN, ("ant", "bee", "cow", "elk")).note is None


def test_another_order_is_matched_by_name_and_shown() -> None:
    matched = match_classes("runs/t", OWN, ("cow", "bee", "elk", "ant"))
    assert matched.places == (2, 1, 3, 0)
    assert matched.note == ("runs/t has the data's 4 classes in another order or under other names; matched by name: "
                            "'cow' is its class 2; 'elk' is its class 3; 'ant' is its class 0.")


def test_some_of_the_classes_are_chosen() -> None:
    matched = match_classes("t", OWN, ("ant", "cow"))
    assert matched.places == (0, 2)
    assert "knows 4 classes, of which the data has 2: its other answers are left out" in str(matched.note)


def test_case_and_joints_of_words_do_not_matter_unless_they_tell_names_apart() -> None:
    assert match_classes("t", OWN, ("Ant", "red deer")).places == (0, 3)
    assert "'red deer' is its class 3, 'red_deer'" in str(match_classes("t", OWN, ("ant", "red deer")).note)
    assert match_classes("t", [("a b",), ("a-b",)], ("a-b", "a b")).places == (1, 0)
    with pytest.raises(Mistake, match="not there by name: 'A_B'"):
        match_classes("t", [("a b",), ("a-b",)], ("A_B",))


def test_a_name_of_two_classes_is_none() -> None:
    cranes = [("n1", "crane"), ("n2", "crane")]
    assert match_classes("t", cranes, ("n2", "n1")).places == (1, 0)
    with pytest.raises(Mistake, match="'crane'"):
        match_classes("t", cranes, ("crane", "n1"))


def test_names_that_do_not_match_ask_for_a_mapping() -> None:
    with pytest.raises(Mistake) as mistake:
        match_classes("runs/t", OWN, ("ant", "beee", "Kuh"))
    said = str(mistake.value)
    assert "of 3, 2 are not there by name: 'beee', closest: ['bee']; 'Kuh'" in said
    assert "teacher.classes={beee: its name}" in said


def test_a_mapping_is_taken_for_the_names_that_differ(tmp_path: Path) -> None:
    given = {"Kuh": "cow", "Biene": "bee"}
    assert match_classes("t", OWN, ("Kuh", "ant", "Biene"), given).places == (2, 0, 1)
    (tmp_path / "names.yaml").write_text("Kuh: cow\nBiene: bee\n")
    assert match_classes("t", OWN, ("Kuh", "ant", "Biene"), str(tmp_path / "names.yaml")).places == (2, 0, 1)
    renamed = match_classes("t", OWN[:2], ("ant", "Biene"), given={"Biene": "bee"})
    assert renamed.places is None
    assert "'Biene' is its class 1, 'bee'" in str(renamed.note)


def test_a_mapping_of_no_class_and_two_classes_in_one_are_mistakes() -> None:
    with pytest.raises(Mistake, match=r"'Kuhh' is none of these, closest: \['Kuh'\]"):
        match_classes("t", OWN, ("Kuh", "ant"), {"Kuhh": "cow"})
    with pytest.raises(Mistake, match="'ant' and 'Kuh' are both its 'ant'"):
        match_classes("t", OWN, ("ant", "Kuh"), {"Kuh": "ant"})


def test_the_order_may_be_said_to_be_the_same() -> None:
    matched = match_classes("t", OWN[:2], ("0", "1"), BY_ORDER)
    assert matched.places is None
    assert "in their order" in str(matched.note)
    with pytest.raises(Mistake, match="knows 4 and the data has 2"):
        match_classes("t", OWN, ("0", "1"), BY_ORDER)


def test_a_network_answers_with_the_chosen_logits_alone() -> None:
    torch.manual_seed(0)
    module, about = Plain(), {"name": "tiny", "size": (3, 16, 16), "statistics": Statistics((0.5,) * 3, (0.25,) * 3)}
    images = torch.rand(2, 3, 16, 16)
    plain = Network(module, **about).eval()
    whole, fingerprint = plain.logits(images), plain.fingerprint()
    chosen = Network(module, places=(2, 0), factory=Plain, **about).eval()
    assert torch.equal(chosen.logits(images), whole[:, [2, 0]])
    assert chosen.num_classes == 2
    assert chosen.shape("logits") == (2,)
    assert chosen.fingerprint() != fingerprint
    assert chosen.fresh(0).num_classes == 2


@pytest.mark.parametrize("network", ["timm:resnet34.tv_in1k", "torchvision:resnet18"])
def test_imagenets_classes_are_known_by_code_description_and_word(network: str) -> None:
    known = known_classes(NetworkSettings(name=network, weights="pretrained"))
    assert known is not None
    assert len(known) == 1000
    for name in ("n01443537", "goldfish", "goldfish, Carassius auratus", "Carassius auratus"):
        assert match_classes(network, known, (name, "n01440764")).places == (1, 0)
    assert known_classes(NetworkSettings(name=network)) is None
