"""Settings: a file, then flags, then --set; everything wrong with them at once; and the way back to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from limbeck.config import Job, NetworkSettings, as_yaml, assignments, merged, read_job, validated
from limbeck.errors import Mistake

LEAST = {"data": "digits", "student": "digits_small"}


@pytest.fixture
def write(tmp_path):
    """A YAML file of some settings, or of some text."""

    def file(content: object) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return file


def mistake(file: Path | None, flags: dict, pair: str | None = None) -> list[str]:
    """The lines of the mistake that these settings are."""
    with pytest.raises(Mistake) as caught:
        read_job(file, flags, pair)
    return str(caught.value).splitlines()


# --- what is right


def test_the_least_job_has_the_papers_defaults():
    job = read_job(None, LEAST)
    assert (job.data.source, job.student, job.teacher) == ("digits", NetworkSettings(name="digits_small"), None)
    assert job.student.weights is None
    assert (job.method.name, job.optimizer.lr, job.training.epochs, job.schedule.drops) == (
        "none", 0.05, 240, (0.625, 0.75, 0.875))
    assert (job.search.lr, job.search.betas, job.process.threshold) == (0.05, (0.5, 0.999), 0.5)


def test_flags_win_over_the_file_and_later_flags_over_earlier_ones(write):
    file = write({**LEAST, "training": {"epochs": 3, "batch_size": 32}, "seed": 1, "optimizer": {"lr": 0.3}})
    job = read_job(file, {"training.epochs": 5, "seed": None, **assignments(["optimizer.lr=0.7", "training.epochs=7"])})
    assert (job.training.epochs, job.training.batch_size, job.seed, job.optimizer.lr) == (7, 32, 1, 0.7)


def test_a_setting_can_be_set_to_nothing(write):
    job = read_job(write({**LEAST, "process": {"threshold": 0.7}}), assignments(["process.threshold=null"]))
    assert job.process.threshold is None


def test_networks_are_names_with_weights_behind_them():
    job = read_job(None, {"data": "digits", "student": "timm:resnet18@pretrained", "teacher": "resnet56"})
    assert (job.student.name, job.student.weights) == ("timm:resnet18", "pretrained")
    assert job.teacher == NetworkSettings(name="resnet56")


def test_sections_given_by_name_take_further_settings(write):
    file = write({"data": "digits", "student": "resnet8@runs/a.pt", "teacher": {"name": "resnet56", "size": 32},
                  "method": "kd"})
    job = read_job(file, {"student.size": 64, "method.temperature": 2, "data.size": 16})
    assert (job.student.name, job.student.weights, job.student.size) == ("resnet8", "runs/a.pt", 64)
    assert (job.method.name, job.method.options) == ("kd", {"temperature": 2})
    assert (job.data.source, job.data.size) == ("digits", 16)


def test_a_flag_that_names_replaces_the_name_alone(write):
    file = write({"data": {"source": "digits", "size": 16}, "student": {"name": "resnet8", "weights": "old.pt"},
                  "method": {"name": "kd", "temperature": 2}})
    job = read_job(file, {"data": "folder", "student": "resnet14@new.pt", "method": "dkd"})
    assert (job.data.source, job.data.size) == ("folder", 16)
    assert (job.student.name, job.student.weights) == ("resnet14", "new.pt")
    assert (job.method.name, job.method.options) == ("dkd", {"temperature": 2})
    assert read_job(file, {"student": "resnet14"}).student.weights is None  # they were another network's


def test_members_may_have_optimisers_of_their_own():
    job = read_job(None, {**LEAST, "optimizers.review.lr": 0.5, "optimizers.student.momentum": 0.0})
    assert job.optimizers == {"review": {"lr": 0.5}, "student": {"momentum": 0.0}}


def test_assignments_are_read_as_yaml():
    found = assignments(["a.b=2", "c=x=y", "d=[1, 2]", " e =true", "f=", "g='1'"])
    assert found["a.b"] == 2
    assert {key: found[key] for key in "cdeg"} == {"c": "x=y", "d": [1, 2], "e": True, "g": "1"}


@pytest.mark.parametrize(("text", "message"), [
    ("temperature", "--set takes section.key=value; got 'temperature'"),
    ("=2", "--set takes section.key=value; got '=2'"),
    ("method.pairs=[1,", r"--set takes section.key=value; got 'method.pairs=\[1,'"),
])
def test_other_forms_of_assignment_are_mistakes(text, message):
    with pytest.raises(Mistake, match=message):
        assignments([text])


# --- pairs


PAIRS = {"data": "digits", "student": {"statistics": "imagenet"}, "training": {"epochs": 3, "batch_size": 32},
         "pairs": {"small": {"student": {"name": "resnet8"}, "training": {"epochs": 5}},
                   "large": {"student": {"name": "resnet14"}, "recipe": {"paper": 70.5}}}}


def test_a_pair_lies_over_the_rest_of_the_file(write):
    job = read_job(write(PAIRS), {"training.batch_size": 8}, "small")
    assert (job.student.name, job.student.statistics) == ("resnet8", "imagenet")
    assert (job.training.epochs, job.training.batch_size, job.recipe.pair) == (5, 8, "small")
    other = read_job(write(PAIRS), {}, "large")
    assert (other.student.name, other.training.epochs, other.recipe.pair, other.recipe.paper) == (
        "resnet14", 3, "large", 70.5)


def test_the_only_pair_needs_no_choosing(write):
    assert read_job(write({**PAIRS, "pairs": {"small": PAIRS["pairs"]["small"]}}), {}).student.name == "resnet8"


def test_a_pair_must_be_one_of_the_files(write):
    assert "needs --pair, one of ['small', 'large']; got None" in mistake(write(PAIRS), {})[0]
    assert "needs --pair, one of ['small', 'large']; got smal" in mistake(write(PAIRS), {}, "smal")[0]
    assert "has no pairs to choose 'small' from" in mistake(write(LEAST), {}, "small")[0]


def test_merging_goes_down_and_changes_neither_tree():
    below, over = {"a": {"x": 1, "y": {"z": 2}}, "b": 3, "c": {"d": 4}}, {"a": {"y": {"w": 5}}, "b": {"e": 6}, "c": 7}
    assert merged(below, over) == {"a": {"x": 1, "y": {"z": 2, "w": 5}}, "b": {"e": 6}, "c": 7}
    assert below == {"a": {"x": 1, "y": {"z": 2}}, "b": 3, "c": {"d": 4}}


# --- what is wrong


def test_everything_wrong_is_told_at_once_with_the_nearest_names(write):
    file = write({"student": "resnet8", "trainig": {"epochs": 3}, "training": {"epochs": 0, "evaluate_evry": 3},
                  "teacher": {"weights": "a.pt"}, "search": {"order": "reel"}})
    lines = mistake(file, {"optimizer.name": "sdg", "optimizer.nestrov": True})
    assert lines[0] == "the settings do not fit:"
    told = "\n".join(sorted(line.strip() for line in lines[1:]))
    assert told.splitlines() == [
        "data is needed and was not given",
        "optimizer.name = 'sdg': input should be 'sgd', 'adam' or 'adamw'",
        "search.order = 'reel': input should be 'real', 'paper' or 'lagged'",
        "teacher.name is needed and was not given",
        "there is no setting optimizer.nestrov; closest: ['nesterov']",
        "there is no setting trainig; closest: ['training']",
        "there is no setting training.evaluate_evry; closest: ['evaluate_every', 'accumulate']",
        "training.epochs = 0: input should be greater than 0"]


@pytest.mark.parametrize(("flags", "message"), [
    ({"optimizer.nesterov": True, "optimizer.momentum": 0}, "nesterov needs a momentum above 0; got momentum 0"),
    ({"optimizer.betas": [0.9, 1.5]}, "optimizer.betas.1 = 1.5: input should be less than 1"),
    ({"search.betas": [-0.1, 0.9]}, "search.betas.0 = -0.1: input should be greater than or equal to 0"),
    ({"schedule.warm_up": 1.0}, "schedule.warm_up = 1.0: input should be less than 1"),
    ({"student": 3}, "student = 3: input should be"),
    ({"training.epochs.more": 3}, "training.epochs = {'more': 3}: input should be a valid number"),
    ({"seed.x": 1}, "seed = {'x': 1}: input should be a valid integer"),
    ({"data.source.x": 1}, "data.source = {'x': 1}: input should be a valid string"),
])
def test_values_that_no_optimiser_or_section_takes_are_mistakes(write, flags, message):
    file = write({**LEAST, "training": {"epochs": 3}, "seed": 1, "data": {"source": "digits"}})
    lines = mistake(file, flags)
    assert len(lines) == 2
    assert message in lines[1]


@pytest.mark.parametrize(("content", "message"), [
    ("data: [1,", "is not valid YAML"), ("- 1\n- 2", "must hold settings by name .* it holds list"),
    ("", "it holds NoneType"), ("text", "it holds str")])
def test_a_file_of_another_kind_is_a_mistake(write, content, message):
    with pytest.raises(Mistake, match=message):
        read_job(write(content), {})


def test_a_file_that_is_no_text_or_not_there_is_a_mistake(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"\x80\x02\xff\xfe")
    with pytest.raises(Mistake, match=r"checkpoint\.pt is not valid YAML"):
        read_job(tmp_path / "checkpoint.pt", {})
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(Mistake, match=f"there is none at {path}. Give the path of a YAML file"):
            read_job(path, {})


# --- the way back


@pytest.mark.parametrize("flags", [LEAST, {
    **LEAST, "student": "resnet8@a.pt", "student.statistics": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
    "teacher": "größer@b.pt",
    "method": {"name": "distpro", "transforms": ["c2"], "teacher_taps": None, "kl": 1e-5},
    "optimizers": {"review": {"name": "adam", "lr": 1e-7, "betas": [0.5, 0.9]}},
    "process.threshold": 0.25, "process.file": "p.safetensors", "training.clip_gradients": 1.5, "seed": 12345678901,
    "schedule": {"kind": "steps", "drops": [1 / 3, 2 / 3]}, "recipe": {"about": "a: b # c", "paper": 70.5}}])
def test_what_is_written_reads_back_the_same(tmp_path, flags):
    job = read_job(None, flags)
    (tmp_path / "config.yaml").write_text(as_yaml(job), encoding="utf-8")
    again = read_job(tmp_path / "config.yaml", {})
    assert again == job
    assert as_yaml(again) == as_yaml(job)


def test_settings_do_not_change():
    job = read_job(None, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        job.seed = 3
    assert validated(Job, {"data": {"source": "digits"}, "student": {"name": "digits_small"}}) == job


def test_a_pairs_options_go_onto_a_method_that_the_file_names_alone(write):
    pairs = {"a": {"method": {"beta": 8}}, "b": {"method": "kd"}}
    file = write({**LEAST, "method": "dkd", "pairs": pairs})
    assert (read_job(file, {}, "a").method.name, read_job(file, {}, "a").method.options) == ("dkd", {"beta": 8})
    assert read_job(file, {}, "b").method.name == "kd"
