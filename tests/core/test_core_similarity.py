"""How alike networks are: by hand, over several batches, over ranks, where shapes differ."""

from __future__ import annotations

import pytest
import torch
from core_tiny import CLASSES, Plain, network
from torch import Tensor

from limbeck import ranks
from limbeck.data import Batches, Split
from limbeck.data.images import Images
from limbeck.evaluation.groups import SIMILARITY
from limbeck.evaluation.scores import score_group
from limbeck.members import Ensemble
from limbeck.method import Method
from limbeck.process import Scheduled
from limbeck.tasks.classification import Classification
from limbeck.terms import Supervise

TASK = Classification()


def images(*, rank: int = 0, world: int = 1) -> Batches:
    chance = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (11, 3, 16, 16), generator=chance, dtype=torch.uint8)
    split = Split.whole(Images(pixels), torch.randint(CLASSES, (11,), generator=chance))
    return Batches(split, 4, train=False, rank=rank, world=world)


def group(*widths: int) -> Method:
    networks = {f"n{i}": network(Plain(width)) for i, width in enumerate(widths)}
    terms = {name: Supervise(name, TASK) for name in networks}
    ensemble = {"ensemble": Ensemble([f"{name}.logits" for name in networks])}
    return Method({**networks, **ensemble}, terms, Scheduled(dict.fromkeys(terms, 1.0)), deploy="n0")


def cosine(method: Method, tap: str, one: str = "n0", other: str = "n1") -> float:
    """Mean over images of the cosine, written plainly."""
    @torch.no_grad()
    def every(name: str) -> Tensor:
        method.members[name].eval().tap([tap] if tap != "logits" else [])
        return torch.cat([method.members[name].read(b.images)[tap].flatten(1) for b in images().epoch(0)])
    f, g = every(one), every(other)
    return float(((f * g).sum(1) / (f.square().sum(1).sqrt() * g.square().sum(1).sqrt())).mean())


def test_it_is_the_mean_cosine_of_last_maps_and_of_logits() -> None:
    method = group(8, 8)
    found = score_group(method, images(), TASK)
    assert found[SIMILARITY] == {"features": pytest.approx(cosine(method, "stage2"), abs=1e-6),
                                 "logits": pytest.approx(cosine(method, "logits"), abs=1e-6)}


def test_a_network_is_like_itself() -> None:
    method = group(8, 8)
    method.members["n1"].load_state_dict(method.members["n0"].state_dict())
    assert score_group(method, images(), TASK)[SIMILARITY] == {"features": pytest.approx(1), "logits": pytest.approx(1)}


def test_of_three_every_pair_has_its_own_and_only_equal_shapes_have_features() -> None:
    method = group(8, 8, 12)
    found = score_group(method, images(), TASK)
    pairs = {name: scores for name, scores in found.items() if name.startswith(f"{SIMILARITY} of")}
    assert [set(scores) for scores in pairs.values()] == [{"features", "logits"}, {"logits"}, {"logits"}]
    assert found[SIMILARITY]["features"] == pairs[f"{SIMILARITY} of n0 and n1"]["features"]
    assert found[SIMILARITY]["logits"] == pytest.approx(sum(scores["logits"] for scores in pairs.values()) / 3)


def test_one_network_is_like_nobody() -> None:
    assert SIMILARITY not in score_group(group(8), images(), TASK)


def test_two_ranks_have_what_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank sees its images, and what it is given of the other is what that one summed."""
    method, sums = group(8, 8), list[Tensor]()
    whole = score_group(method, images(), TASK)[SIMILARITY]
    monkeypatch.setattr(ranks, "sum_over_ranks", lambda x: sums.append(x.clone()) or x)
    for rank in range(2):
        score_group(method, images(rank=rank, world=2), TASK)
    ours, theirs = (x for x in sums if x.shape == (2, 2))
    monkeypatch.setattr(ranks, "sum_over_ranks", lambda x: x + theirs if x.shape == (2, 2) else x)
    found = score_group(method, images(rank=0, world=2), TASK)[SIMILARITY]
    assert found == {key: pytest.approx(value, abs=1e-6) for key, value in whole.items()}
    assert not torch.equal(ours, theirs)
