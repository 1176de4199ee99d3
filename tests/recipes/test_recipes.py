"""The recipes: every one fits limbeck's settings and says what it lacks; every number of DistPro's tables is in one."""

import re
from math import ceil, sqrt
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck import wiring
from limbeck.cli import app
from limbeck.config import Job
from limbeck.methods import METHODS
from limbeck.sources import check_network
from limbeck.sweeps import recipes

FOLDER = Path(__file__).parents[2] / "recipes"
ALL = recipes.find_recipes(FOLDER)
JOBS = [pytest.param(job, id=f"{recipe.file.parent.name}/{recipe.file.stem}:{pair}")
        for recipe in ALL for pair, job in recipe.jobs.items()]
DISTPRO = {recipe.file.stem: recipe.jobs for recipe in ALL if recipe.file.parent.name == "distpro"}

CIFAR = ("wrn_40_2-wrn_16_2", "wrn_40_2-shufflev1", "resnet32x4-shufflev1", "resnet32x4-shufflev2", "resnet56-resnet20",
         "resnet110-resnet32")
MOBILENET, RESNET, VIT = "resnet50-mobilenetv1", "resnet34-resnet18", "vit_b-deit_tiny"
IMAGENET = (MOBILENET, f"{MOBILENET}-top5", RESNET, f"{RESNET}-top5", VIT)

# Copied from the paper, apart from the recipes: row -> what is printed in each column; None where nothing is.
MEANS: dict[tuple[str, ...], dict[str, tuple[float | None, ...]]] = {
    CIFAR: {
        "table1-teacher": (76.51, 76.51, 79.45, 79.45, 73.28, 74.13),
        "table1-student": (73.26, 70.50, 70.50, 71.82, 69.06, 71.14),
        "table1-l2t-ww": (None, None, 76.35, 77.39, None, None),
        "table1-reviewkd": (76.20, 77.14, 76.41, 77.37, 71.89, 73.16),
        "table1-equally-weighted": (75.50, 74.28, 73.54, 74.39, 70.89, 73.19),
        "table1-alpha-t": (76.25, 77.19, 77.15, 76.64, 71.24, 73.58),
        "table1-distpro": (76.36, 77.24, 77.18, 77.54, 72.03, 73.74)},
    (MOBILENET, RESNET, VIT): {
        "table2-reviewkd": (72.56, 71.61, 73.44),
        "table2-distpro": (72.54, 71.59, 73.41)},
    (f"{MOBILENET}-10-epochs", f"{MOBILENET}-100-epochs"): {
        "fig5-reviewkd": (62.03, 73.12),
        "fig5-distpro": (65.25, 73.26)},
    (MOBILENET,): {"table3-from-tiny-imagenet": (73.26,), "table3-from-cifar100": (73.20,)},
    (RESNET,): {"table3-from-same-pair": (71.89,), "table3-from-other-pair": (71.87,)},
    IMAGENET: {
        "table4-teacher": (76.16, 93.86, 73.31, 91.42, 85.1),
        "table4-student": (68.87, 88.76, 69.75, 89.07, 73.41),
        "table4-ofd": (71.25, 90.34, 70.81, 89.98, None),
        "table4-london": (72.36, 91.03, None, None, None),
        "table4-sckd": (72.4, None, 71.3, None, None),
        "table4-reviewkd": (72.56, 91.00, 71.61, 90.51, None),
        "table4-reviewkd-cosine": (73.12, 91.22, 71.76, 90.67, 73.44),
        "table4-distpro": (73.26, 91.27, 71.89, 90.76, 73.51)},
    ("resnet101-mobilenetv2",): {
        "table5-baseline": (66.92,), "table5-ifvd": (68.31,), "table5-sckd": (68.25,), "table5-reviewkd": (69.03,),
        "table5-equally-weighted": (68.49,), "table5-distpro": (69.12,)},
    ("resnet50-resnet18",): {
        "table6-baseline": (0.2032,), "table6-kd": (0.2045,), "table6-reviewkd": (0.1983,),
        "table6-equally-weighted": (0.2030,), "table6-distpro": (0.1972,)},
    ("wrn_28_4-wrn_16_4",): {
        "table7-biased-softmax": (79.78,), "table7-softmax": (79.41,), "table7-biased-l1": (79.47,),
        "table7-l1": (79.20,), "table7-sigmoid": (78.80,), "table7-teacher": (None,)}}
SEARCHES = {"search-tiny-imagenet": (MOBILENET, RESNET, VIT), "search-cifar100": (MOBILENET,)}

VARIANCES = {  # Table 1
    "table1-student": (0.050, 0.360, 0.360, 0.062, 0.052, 0.061),
    "table1-reviewkd": (0.030, 0.015, 0.063, 0.069, 0.056, 0.029),
    "table1-equally-weighted": (0.010, 0.085, 0.120, 0.119, 0.065, 0.052),
    "table1-alpha-t": (0.034, 0.074, 0.043, 1.335, 0.014, 0.012),
    "table1-distpro": (0.005, 0.063, 0.047, 0.059, 0.022, 0.011)}
FRACTIONS = {  # Table 5: deviations, where means are in %
    "table5-baseline": 0.00721, "table5-ifvd": 0.00264, "table5-sckd": 0.00307, "table5-reviewkd": 0.00373,
    "table5-equally-weighted": 0.00793, "table5-distpro": 0.00462}

REVIEWKD_WEIGHTS = (5, 5, 5, 8, 0.6, 1)


@pytest.mark.parametrize("job", JOBS)
def test_methods_options_and_networks_exist(job: Job) -> None:
    if job.recipe.needs:
        return
    wiring.own_options(job.method)
    check_network(job.student)
    further = [network for several in job.networks.values() for network in several]
    for teacher in filter(None, (job.teacher, *further)):
        if "/" not in teacher.name:
            check_network(teacher)
    if job.method.name != "none":
        assert (job.teacher is not None) == wiring.needs_teacher(job.method.name)
        assert set(job.networks) == {role for part in wiring.parts_of(job.method.name)
                                     for role, optional in wiring.networks_of(part).items() if not optional}


@pytest.mark.parametrize("job", JOBS)
def test_whoever_lacks_a_method_says_so(job: Job) -> None:
    lacks, says = not set(job.method.name.split("+")) <= set(METHODS), "the method" in (job.recipe.needs or "")
    assert lacks == says, "either the recipe needs a method and does not say so, or the method is there: complete it"
    assert job.recipe.about
    assert job.recipe.source


def test_names_are_unique() -> None:
    stems = [f"{recipe.file.parent.name}/{recipe.file.stem}" for recipe in ALL]
    assert len(set(stems)) == len(stems)
    abouts = [next(iter(recipe.jobs.values())).recipe.about for recipe in ALL]
    assert len(set(abouts)) == len(abouts)


def test_every_number_of_distpro_is_there() -> None:
    printed = {row: {pair: number for pair, number in zip(pairs, numbers, strict=True) if number is not None}
               for pairs, rows in MEANS.items() for row, numbers in rows.items()}
    ours = {row: {pair: job.recipe.paper for pair, job in jobs.items() if job.recipe.paper is not None}
            for row, jobs in DISTPRO.items() if row not in SEARCHES}
    assert ours == printed
    assert {row: tuple(DISTPRO[row]) for row in SEARCHES} == SEARCHES


def test_variances_are_stored_as_deviations() -> None:
    for row, variances in VARIANCES.items():
        found = [DISTPRO[row][pair].recipe.deviation for pair in CIFAR]
        assert found == pytest.approx([sqrt(variance) for variance in variances], abs=5e-5)
    for row, fraction in FRACTIONS.items():
        assert DISTPRO[row]["resnet101-mobilenetv2"].recipe.deviation == pytest.approx(100 * fraction)


def test_each_number_has_its_metric() -> None:
    for row, jobs in DISTPRO.items():
        for pair, job in jobs.items():
            wanted = {"table5": "miou", "table6": "rmse"}.get(row[:6], "top5" if pair.endswith("-top5") else "top1")
            assert job.recipe.metric == wanted, (row, pair)


def test_the_settings_on_cifar_are_the_published_ones() -> None:
    rows = [jobs for row, jobs in DISTPRO.items() if row.startswith(("table1", "table7")) and row != "table1-l2t-ww"]
    for pair, job in (item for jobs in rows for item in jobs.items()):
        light = job.student.name.startswith("shuffle")
        assert job.optimizer.model_dump(include={"name", "lr", "momentum", "nesterov", "weight_decay"}) == {
            "name": "sgd", "lr": 0.02 if light else 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        assert (job.training.epochs, job.training.batch_size) == (240, 128)
        assert [drop * 240 for drop in job.schedule.drops] == [150, 180, 210]
        assert job.student.statistics == "reviewkd"
        if job.method.name == "none":
            assert job.teacher is None
        else:
            assert job.teacher is not None
            assert (Path(job.teacher.name).name, job.student.name) == tuple(pair.split("-"))


def test_the_search_is_the_published_one() -> None:
    rows = [row for row in DISTPRO if row.startswith("table7-") and row != "table7-teacher"]
    for job in (job for row in (*rows, "table1-distpro", "table1-alpha-t") for job in DISTPRO[row].values()):
        search = job.search
        assert (search.epochs, search.held_out, search.optimizer, search.lr, search.start) == (40, 0.2, "adam", 0.05, 1)
        assert [drop * 40 for drop in search.schedule.drops] == [10, 20, 30]
        assert job.process.threshold == 0.5
        assert job.method.options["space"] == "paper27"
    for row in rows:
        assert DISTPRO[row]["wrn_28_4-wrn_16_4"].process.normaliser == row.removeprefix("table7-")


def test_the_settings_on_scenes_and_rooms_are_the_published_ones() -> None:
    for job in (job for row in DISTPRO if row.startswith("table5") for job in DISTPRO[row].values()):
        assert round(job.training.epochs * ceil(2975 / job.training.batch_size), -1) == 39990
        assert (job.data.crop, job.training.batch_size, job.schedule.kind, job.schedule.power) == (512, 8, "poly", 0.9)
        assert (job.optimizer.lr, job.optimizer.momentum, job.optimizer.weight_decay) == (0.01, 0.9, 5e-4)
    for job in (job for row in DISTPRO if row.startswith("table6") for job in DISTPRO[row].values()):
        assert [drop * job.training.epochs for drop in job.schedule.drops] == pytest.approx([5, 10], abs=1e-4)
        assert (job.data.size, job.training.batch_size, job.optimizer.lr) == ((228, 304), 8, 0.01)


def test_weights_of_reviewkd() -> None:
    assert [DISTPRO["table1-reviewkd"][pair].method.options["weight"] for pair in CIFAR] == list(REVIEWKD_WEIGHTS)


def test_the_list_names_every_file_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    text = CliRunner().invoke(app, ["list", "recipes"]).stdout
    for recipe in ALL:
        assert f"{recipe.file.relative_to(FOLDER.parent)}  {next(iter(recipe.jobs.values())).recipe.about}\n" in text
    assert re.search(r"\n    wrn_40_2-wrn_16_2 +top1 76.36 ± 0.071\n", text)
    assert re.search(r"\n    resnet50-resnet18 +rmse 0.1972\n", text)


def test_the_list_says_what_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "data: digits\nstudent: digits_small\nrecipe: {about: a row, %s}\npairs:\n"
    both = "  one: {recipe: {paper: 1}}\n  other: {recipe: {paper: 2, %s}}\n"
    (tmp_path / "all.yaml").write_text(head % "needs: a method" + both % "metric: top5")
    (tmp_path / "some.yaml").write_text(head % "metric: top1" + both % "needs: a network")
    monkeypatch.setattr(recipes, "recipes_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert recipes.listed().splitlines() == [
        "all.yaml  a row", "    needs a method", "    one    top1 1", "    other  top5 2",
        "some.yaml  a row", "    one    top1 1", "    other  top1 2              needs a network"]


def test_without_a_checkout_it_is_said_where_recipes_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "__file__", str(tmp_path / "site-packages" / "limbeck" / "recipes.py"))
    monkeypatch.chdir(tmp_path)
    assert "the folder `recipes` of limbeck's repository" in recipes.listed()


def test_a_recipe_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: digits\nstudent: digits_small\nrecipe: {about: mine, paper: 1.5}\n")
    (recipe,) = recipes.find_recipes(tmp_path)
    assert list(recipe.jobs) == [""]
    assert recipe.jobs[""].recipe.paper == 1.5
