"""Where everyone looks: whose maps, what they are, which images; and the picture of groups by their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg

from limbeck.contract.trial import CLASSES, Trial, built, split
from limbeck.data import Batches
from limbeck.errors import Mistake
from limbeck.report import rows
from limbeck.report.attending import attention, looks
from limbeck.report.students import students

NAMES = tuple("abcd")
assert len(NAMES) == CLASSES


def batches(count: int = 24) -> Batches:
    return Batches(split(count), 8, train=False)


@pytest.mark.parametrize(("trial", "who"), [
    (Trial("ffsd"), ["student1", "student2", "fusion", "leader"]), (Trial("kd"), ["student", "teacher"]),
    (Trial("one"), ["student"]), (Trial("ffl"), ["student", "peer1", "fusion"]), (Trial("dml"), ["student", "peer1"])],
    ids=["ffsd", "kd", "one", "ffl", "dml"])
def test_networks_are_shown_then_what_fuses_them_then_a_leader_or_a_teacher(trial: Trial, who: list[str]) -> None:
    found = looks(built(trial), batches(), NAMES)
    assert list(found.maps) == who


def test_a_map_is_the_mean_square_over_channels_from_lowest_to_highest() -> None:
    method = built(Trial("dml"))
    found = looks(method, batches(), NAMES)
    network = method.members["peer1"].eval()
    with torch.no_grad():
        maps = network.read(torch.from_numpy(found.images).permute(0, 3, 1, 2))[network.stages[-1]]
    plain = F.interpolate(maps.square().mean(1, keepdim=True), found.images.shape[1:3], mode="bilinear")[:, 0].numpy()
    low, high = (f(plain, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    np.testing.assert_allclose(found.maps["peer1"], (plain - low) / (high - low), atol=1e-5)
    assert (found.maps["peer1"].min(), found.maps["peer1"].max()) == (0, 1)


def test_the_first_image_of_each_class_is_shown_and_everyone_stays_in_train_mode() -> None:
    method = built(Trial("ffsd"))
    found = looks(method, batches(), NAMES)
    targets = torch.cat([b.targets for b in batches().epoch(0)])
    firsts = [int((targets == label).nonzero()[0]) for label in range(CLASSES)]
    assert found.labels == NAMES
    first = torch.cat([b.images for b in batches().epoch(0)])[firsts].permute(0, 2, 3, 1)
    assert torch.equal(torch.from_numpy(found.images), first)
    assert all(part.training for part in method.members.values())
    assert len(looks(method, batches(), NAMES, count=2).images) == 2


def test_tokens_are_maps_too() -> None:
    assert list(looks(built(Trial("kd", networks=("vit", "cnn"))), batches(), NAMES).maps) == ["student", "teacher"]


def test_the_picture_has_a_panel_for_each_image_and_member() -> None:
    found = looks(built(Trial("ffsd")), batches(), NAMES)
    figure = attention(found)
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == len(NAMES) * 5
    assert [axes.get_title() for axes in figure.axes[:5]] == ["image", "student1", "student2", "fusion", "leader"]


# --- accuracy against the number of students


@pytest.fixture
def groups(make: Callable[..., Path]) -> list[Path]:
    """FFSD with 1, 2 and 4 students, two seeds each."""
    def one(count: int, seed: int) -> Path:
        together = [f"student{k}" for k in range(1, count + 1)]
        scores = {name: {"top1": 70.0 + seed} for name in together}
        scores |= {"fusion": {"top1": 72.0 + count}, "leader": {"top1": 71.0 + count + 2 * seed}}
        scores |= {"any member right": {"top1": 90.0}} if count > 1 else {}
        last = {"top1": 71.0 + count + 2 * seed, "members": scores, "together": together}
        return make(f"{count}-{seed}", method={"name": "ffsd", "students": count}, teacher=None, seed=seed,
                    result={"verb": "distill", "test": {"last": last, "peak": last}})
    return [one(count, seed) for count in (4, 1, 2) for seed in (0, 1)]


def test_a_line_for_each_name_by_the_number_of_students(groups: list[Path]) -> None:
    figure = students(rows(groups))
    FigureCanvasAgg(figure).draw()
    lines = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in figure.axes[0].containers}
    assert lines == {"mean of members": [[1, 70.5], [2, 70.5], [4, 70.5]], "fusion": [[1, 73], [2, 74], [4, 76]],
                     "leader": [[1, 73], [2, 74], [4, 76]]}
    leader = next(bars for bars in figure.axes[0].containers if bars.get_label() == "leader")
    (segments,) = (part.get_segments() for part in leader.lines[2])
    assert np.ptp(segments[0][:, 1]) == pytest.approx(2 * 2 ** 0.5)


def test_runs_that_differ_otherwise_are_refused(groups: list[Path], make: Callable[..., Path]) -> None:
    with pytest.raises(Mistake, match="shows one method on one network"):
        students(rows([*groups, make("kd")]))
    with pytest.raises(Mistake, match="Give runs that differ in their number of students"):
        students(rows([make("kd")]))
