"""A frozen network from a cache is the frozen network, only faster; whose outputs are stored, and whose are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cache_tiny import CROPS, IMAGES, KD, batches, built, remembered, stages, teacher

from limbeck.cache import Remembered, Remembering
from limbeck.cache.filling import errors, fill, missing, timed
from limbeck.contract.trial import Trial, split
from limbeck.data import Augmentation, EveryView, SomeViews
from limbeck.data.randaugment import RandAugment
from limbeck.errors import Mistake, Stopped
from limbeck.method import Method
from limbeck.process import Scheduled
from limbeck.seen import Clock, Seen

CLOCK = Clock(0, 1, 1)


def filled(method: Method, folder: Path, **settings: object) -> Remembering:
    found = remembered(method, folder, **settings)
    for network in found.networks.values():
        fill(network, found.repertoire, split(IMAGES), batch_size=8, device=torch.device("cpu"), workers=0,
             autocast=torch.no_grad, tell=lambda done: None)
        network.cache.close()
        network.cache.refresh()
    return found


def test_every_output_is_the_networks_own(tmp_path: Path) -> None:
    method = built(Trial("kd+at"))
    found = filled(method, tmp_path, taps=None)
    one = teacher(method)
    assert missing(one, found.repertoire, split(IMAGES)) == 0
    assert found.repertoire == EveryView(CROPS)
    assert one.cache.stored == IMAGES * 50
    for batch in batches(found).epoch(1):
        read, live = one(Seen(batch, CLOCK, {})), one.computed(Seen(batch, CLOCK, {}))
        assert {"logits", "stage1", "stage2", "stage3"} <= read.keys()
        for tap in read:
            torch.testing.assert_close(read[tap], live[tap], rtol=1e-5, atol=1e-6)
    assert one.found == IMAGES


def test_what_is_missing_is_computed_alone_and_found_after_the_pass(tmp_path: Path) -> None:
    method = built(KD)
    found, one = remembered(method, tmp_path), teacher(method)
    seen: list[int] = []
    one.network.module.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    first, *rest = batches(found).epoch(0)
    one(Seen(first, CLOCK, {}))
    one.cache.flush()
    one.cache.refresh()
    mixed = replace(first, images=torch.cat([first.images[:3], rest[0].images[:2]]),
                    index=torch.cat([first.index[:3], rest[0].index[:2]]),
                    view_ids=torch.cat([first.view_ids[:3], rest[0].view_ids[:2]])[[3, 0, 4, 2, 1]])
    mixed = replace(mixed, images=mixed.images[[3, 0, 4, 2, 1]])
    read = one(Seen(mixed, CLOCK, {}))["logits"]
    assert seen == [8, 2]
    torch.testing.assert_close(read, one.computed(Seen(mixed, CLOCK, {}))["logits"])
    assert (one.asked, one.found) == (13, 3)


def test_a_step_of_several_turns_asks_once(tmp_path: Path) -> None:
    method = built(KD)
    found, one = remembered(method, tmp_path), teacher(method)
    batch = next(batches(found).epoch(0))
    outputs = one(Seen(batch, CLOCK, {}))
    assert one(Seen(batch, CLOCK, {})) is outputs
    assert one.asked == 8


def test_the_network_stays_where_it_is_until_it_has_to_run(tmp_path: Path) -> None:
    method = built(KD)
    found = filled(method, tmp_path)
    one = teacher(method)
    one.network.module.register_forward_pre_hook(lambda module, args: pytest.fail("it ran"))
    method.to(torch.float64)
    batch = next(batches(found).epoch(0))
    assert one(Seen(batch, CLOCK, {}))["logits"].dtype == torch.float32
    assert one.network.module.fc.weight.dtype == torch.float32
    assert method.student().module.fc.weight.dtype == torch.float64
    one.network.module._forward_pre_hooks.clear()
    plain = replace(batch, images=batch.images.double(), view_ids=None)
    assert one(Seen(plain, CLOCK, {}))["logits"].dtype == torch.float64
    assert one.network.module.fc.weight.dtype == torch.float64


def test_what_is_read_has_the_images_type(tmp_path: Path) -> None:
    method = built(KD)
    found = filled(method, tmp_path)
    batch = next(batches(found).epoch(0))
    double = Seen(replace(batch, images=batch.images.double()), CLOCK, {})
    assert teacher(method)(double)["logits"].dtype == torch.float64


def test_filling_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 100:
            raise Stopped

    method = built(KD)
    found, one = remembered(method, tmp_path), teacher(method)
    with pytest.raises(Stopped):
        fill(one, found.repertoire, split(IMAGES), batch_size=8, device=torch.device("cpu"), workers=0,
             autocast=torch.no_grad, tell=stop)
    one.cache.flush()
    again = filled(built(KD), tmp_path)
    assert again.networks["teacher"].cache.stored == IMAGES * 50
    assert again.networks["teacher"].asked == IMAGES * 50 - 106  # three views, and two batches of 8
    assert len(list(tmp_path.glob("teacher/*.index"))) == 2


def test_error_and_times_are_measured(tmp_path: Path) -> None:
    method = built(KD)
    found = filled(method, tmp_path, top_k=2)
    measured = errors(teacher(method), batches(found).epoch(0), torch.no_grad, [1.0, 4.0])
    assert measured[1.0] > measured[4.0] > 0
    times = timed(method, batches(found), torch.enable_grad)
    assert min(times.live, times.stored) > 0
    assert all(p.grad is None for p in method.parameters())


# --- choosing


def test_random_boxes_have_a_few_views(tmp_path: Path) -> None:
    boxes = Augmentation("resized-crop")
    assert remembered(built(KD), tmp_path / "few", augmentation=boxes).repertoire == SomeViews(boxes, IMAGES, 20)
    made = remembered(built(KD), tmp_path / "said", augmentation=boxes, views=3, seed=5)
    assert made.repertoire == SomeViews(boxes, IMAGES, 3, 5)
    assert remembered(built(KD), tmp_path / "said", augmentation=boxes, seed=5).repertoire == made.repertoire


def test_what_randaugment_made_is_a_view_among_a_few_and_another_magnitude_is_refused(tmp_path: Path) -> None:
    strong, stronger = (Augmentation("crop-flip", 2, after=RandAugment(magnitude, 0.25)) for magnitude in (5.0, 9.0))
    assert remembered(built(KD), tmp_path, augmentation=strong).repertoire == SomeViews(strong, IMAGES, 20)
    with pytest.raises(Mistake, match=r"its augmentation after magnitude is 5\.0, and 9\.0 is given"):
        remembered(built(KD), tmp_path, augmentation=stronger)


def test_as_many_views_as_fit(tmp_path: Path) -> None:
    size = 16 * IMAGES / 2**30
    assert remembered(built(KD), tmp_path / "all", gib=50.5 * size).repertoire == EveryView(CROPS)
    assert remembered(built(KD), tmp_path / "some", gib=7.5 * size).repertoire == SomeViews(CROPS, IMAGES, 7)
    with pytest.raises(Mistake, match=r"one view of each of 30 images takes 480 bytes, and cache\.gib leaves"):
        remembered(built(KD), tmp_path / "none", gib=0.5 * size)
    with pytest.raises(Mistake, match=r"an image has 50 views under crop-flip, and cache\.views is 51"):
        remembered(built(KD), tmp_path / "more", views=51)


@pytest.mark.parametrize(("change", "told"), [
    ({"about": {"data": "other"}}, "its data is this, and other is given"),
    ({"views": 4}, "its views count is 50, and 4 is given"),
    ({"augmentation": Augmentation("crop", 2), "views": 25}, "its augmentation kind is crop-flip, and crop is given"),
    ({"precision": "float16"}, "its outputs precision is float32, and float16 is given"),
    ({"top_k": 2}, r"its outputs top_k is None, and 2 is given; its outputs tail is None, and smooth"),
    ({"images": 20}, "its images is 30, and 20 is given"),
])
def test_outputs_of_something_else_are_refused(tmp_path: Path, change: dict, told: str) -> None:
    remembered(built(KD), tmp_path, about={"data": "this"})
    with pytest.raises(Mistake, match=rf"holds outputs of something else: .*{told}"):
        remembered(built(KD), tmp_path, **{"about": {"data": "this"}, **change})


def test_another_teacher_is_refused(tmp_path: Path) -> None:
    remembered(built(KD), tmp_path)
    other = built(KD)
    with torch.no_grad():
        next(other.frozen["teacher"].parameters()).add_(1)
    with pytest.raises(Mistake, match=r"its network fingerprint is \w+, and \w+ is given.*choose another --cache"):
        remembered(other, tmp_path)


def test_rows_without_a_record_are_refused(tmp_path: Path) -> None:
    filled(built(KD), tmp_path)
    (tmp_path / "teacher" / "about.json").unlink()
    with pytest.raises(Mistake, match=r"holds rows, and no about\.json says of what"):
        remembered(built(KD), tmp_path)
    (tmp_path / "teacher" / "about.json").write_text("{")
    with pytest.raises(Mistake, match="cannot be read as JSON"):
        remembered(built(KD), tmp_path)


def test_a_cache_that_has_more_serves_a_method_that_reads_less(tmp_path: Path) -> None:
    filled(built(Trial("kd+at")), tmp_path, taps=None)
    method = built(KD)
    found = remembered(method, tmp_path)
    assert missing(found.networks["teacher"], found.repertoire, split(IMAGES)) == 0
    assert "stage1" in teacher(method).cache.row.shapes


@pytest.mark.parametrize(("trial", "settings", "told"), [
    (Trial("none"), {}, "the method has no frozen network"),
    (Trial("at"), {}, r"reads its \['stage1', .*'stage3'\] and cache\.taps stores \['logits'\]; null stores all"),
    (Trial("ofd", {"batch_statistics": True}), {"taps": None}, "it normalises by the batch"),
])
def test_what_cannot_be_stored_is_refused_with_the_reason(tmp_path: Path, trial: Trial, settings: dict,
                                                          told: str) -> None:
    with pytest.raises(Mistake, match=rf"there is none to store here \(.*{told}"):
        remembered(built(trial), tmp_path, **settings)


def test_a_teacher_of_a_strong_view_runs_beside_one_that_is_remembered(tmp_path: Path) -> None:
    method = built(Trial("mlkd"))
    found = remembered(method, tmp_path)
    assert list(found.networks) == ["teacher"]
    assert found.live == {"teacher-strong": "it looks at a further view of each image, which is not counted"}
    assert "teacher-strong is not stored, as it looks" in found.told()[1]


def test_a_network_that_learns_in_the_run_is_not_stored_and_the_real_teacher_is(tmp_path: Path) -> None:
    parts = stages(Trial("takd", further={"assistants": (10,)}))
    found = remembered(parts, tmp_path)
    assert list(found.networks) == ["teacher"]
    assert parts[0].method.frozen["teacher"] is found.networks["teacher"]
    assert found.live == {"student-teacher": "it learns in this very run"}
    assert not isinstance(parts[1].method.frozen["teacher"], Remembered)


def test_one_cache_serves_the_method_under_another_process(tmp_path: Path) -> None:
    method = built(KD)
    other = method.under(Scheduled({"ce": 1.0, "kl": 0.5}))
    remembered(method, tmp_path)
    assert teacher(other) is teacher(method)
