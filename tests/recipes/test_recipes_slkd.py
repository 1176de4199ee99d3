"""SLKD's recipes: every number of its tables that we have, under the settings of its section on training."""

from pathlib import Path

import pytest

from limbeck.sweeps import recipes

FOLDER = Path(__file__).parents[2] / "recipes" / "slkd"
SLKD = {recipe.file.stem: recipe.jobs for recipe in recipes.find_recipes(FOLDER)}
CIFAR = {row: jobs for row, jobs in SLKD.items() if row != "imagenet-slkd"}

SAME = ("resnet32x4-resnet8x4", "resnet56-resnet8", "wrn_40_2-wrn_40_1", "wrn_40_2-wrn_16_2", "vgg13-vgg11",
        "vgg13-vgg8")
OTHER = ("resnet32x4-shufflev2", "resnet32x4-shufflev1", "resnet50-mobilenetv2", "vgg13-mobilenetv2",
         "wrn_40_2-shufflev1")
ABLATED = ("resnet32x4-resnet8x4", "vgg13-mobilenetv2")

# Copied from the paper, apart from the recipes: row -> what is printed in each column.
PRINTED: dict[tuple[str, ...], dict[str, tuple[float, ...]]] = {
    SAME: {
        "table1-teacher": (79.42, 72.34, 75.61, 75.61, 74.64, 74.64),
        "table1-student": (72.50, 59.98, 71.98, 73.26, 71.32, 70.36),
        "table1-at": (73.44, 58.41, 72.77, 74.08, 73.63, 71.43),
        "table1-sp": (72.94, 58.49, 72.65, 73.89, 74.88, 73.36),
        "table1-rkd": (71.90, 58.06, 72.22, 73.35, 73.29, 71.48),
        "table1-ofd": (74.95, 57.42, 74.33, 75.24, 75.14, 73.95),
        "table1-crd": (75.51, 60.94, 74.14, 75.48, 74.02, 73.94),
        "table1-reviewkd": (75.63, 60.27, 75.09, 76.12, 75.32, 74.84),
        "table1-dkd": (76.32, 61.62, 74.81, 76.24, 74.92, 74.68),
        "table1-kd": (73.33, 60.17, 73.54, 74.92, 74.54, 72.98),
        "table1-slkd": (76.85, 62.05, 74.91, 76.31, 75.46, 75.01),
        "table8-slkd": (76.85, 62.05, 74.91, 76.31, 75.46, 75.01),
        "table8-slkd-star": (75.61, 61.99, 74.60, 75.78, 74.96, 74.41)},
    OTHER: {
        "table2-teacher": (79.42, 79.42, 79.34, 74.64, 75.61),
        "table2-student": (71.82, 70.50, 64.60, 64.60, 70.50),
        "table2-at": (72.73, 71.73, 58.58, 59.40, 73.32),
        "table2-sp": (75.75, 75.51, 68.61, 66.74, 75.94),
        "table2-rkd": (73.21, 72.28, 64.43, 64.52, 72.21),
        "table2-ofd": (76.82, 75.98, 69.04, 69.48, 75.85),
        "table2-crd": (75.65, 75.11, 69.11, 69.73, 76.05),
        "table2-reviewkd": (77.78, 77.45, 69.89, 70.37, 77.14),
        "table2-dkd": (77.07, 76.45, 70.35, 69.71, 76.70),
        "table2-kd": (74.45, 74.07, 67.35, 67.37, 74.83),
        "table2-slkd": (77.26, 76.17, 70.43, 69.94, 76.72),
        "table9-slkd": (77.26, 76.17, 70.43, 69.94, 76.72),
        "table9-slkd-star": (76.12, 75.34, 68.29, 69.36, 76.29)},
    ("resnet56-resnet20", "resnet110-resnet20", "resnet50-resnet20", "resnet32x4-resnet20"): {
        "table5-teacher": (72.34, 74.31, 79.34, 79.42),
        "table5-kd": (71.04, 70.71, 70.55, 69.21),
        "table5-slkd": (71.13, 71.20, 70.98, 70.38)},
    ("resnet110-wrn_16_2", "vgg13-wrn_16_2", "wrn_40_2-wrn_16_2", "resnet32x4-wrn_16_2"): {
        "table6-teacher": (74.31, 74.64, 75.61, 79.42),
        "table6-kd": (74.94, 74.69, 75.31, 74.37),
        "table6-slkd": (75.29, 75.42, 76.31, 75.08)},
    ABLATED: {
        "table7-teacher-only": (73.33, 67.37),
        "table7-self-teacher-only": (75.71, 68.76),
        "table7-both": (76.13, 69.25)}}
GAINS = {"table1": (3.52, 1.88, 1.37, 1.39, 0.92, 2.03), "table2": (2.81, 2.10, 3.08, 2.57, 1.89)}  # row SLKD - KD

BETAS = {"table1": (8, 2, 6, 6, 6, 6), "table2": (8, 8, 8, 6, 8)}
WEIGHTS = {"table1": (5, 0.6, 5, 5, 5, 5), "table2": (8, 5, 8, 8, 5)}


def test_every_number_is_there() -> None:
    printed = {row: dict(zip(pairs, numbers, strict=True))
               for pairs, rows in PRINTED.items() for row, numbers in rows.items()}
    assert {row: {pair: job.recipe.paper for pair, job in jobs.items()} for row, jobs in CIFAR.items()} == printed


@pytest.mark.parametrize("table", list(GAINS))
def test_the_gains_that_the_paper_prints_are_those_of_the_rows(table: str) -> None:
    gains = [SLKD[f"{table}-slkd"][pair].recipe.paper - job.recipe.paper for pair, job in SLKD[f"{table}-kd"].items()]
    assert gains == pytest.approx(GAINS[table], abs=0.0051)


def test_the_settings_are_the_published_ones() -> None:
    for row, jobs in CIFAR.items():
        for pair, job in jobs.items():
            assert job.data.model_dump(include={"augment", "padding", "padding_mode"}) == {
                "augment": "crop-flip", "padding": 4, "padding_mode": "zeros"}
            rate = 0.01 if job.student.name.startswith(("shuffle", "mobile")) else 0.05
            assert job.optimizer.model_dump(include={"name", "lr", "momentum", "nesterov", "weight_decay"}) == {
                "name": "sgd", "lr": rate, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}, (row, pair)
            assert (job.training.epochs, job.training.batch_size) == (240, 64)
            assert [drop * 240 for drop in job.schedule.drops] == [150, 180, 210]
            assert (job.schedule.factor, job.student.statistics, job.recipe.metric) == (0.1, "cifar100", "top1")


def test_pairs_are_the_networks_of_their_columns() -> None:
    for row, jobs in CIFAR.items():
        for pair, job in jobs.items():
            teacher, student = pair.split("-")
            if job.method.name == "none":
                assert job.teacher is None
                assert job.student.name == (teacher if row.endswith("-teacher") else student)
            else:
                assert job.teacher is not None
                assert (job.teacher.name, job.student.name) == (f"runs/teachers/{teacher}", student)


@pytest.mark.parametrize("table", ["table1", "table2"])
def test_baselines_have_the_options_of_their_pairs(table: str) -> None:
    dkd, review = SLKD[f"{table}-dkd"], SLKD[f"{table}-reviewkd"]
    assert [job.method.options for job in dkd.values()] == [{"beta": beta} for beta in BETAS[table]]
    assert [job.method.options for job in review.values()] == [{"weight": weight} for weight in WEIGHTS[table]]
    for row in ("at", "sp", "rkd", "crd", "kd"):
        assert {(job.method.name, *job.method.options) for job in SLKD[f"{table}-{row}"].values()} == {(row,)}
    assert {job.method.options["batch_statistics"] for job in SLKD[f"{table}-ofd"].values()} == {True}


def test_who_supervises_and_when() -> None:
    options = {row: next(iter(jobs.values())).method.options for row, jobs in SLKD.items() if "slkd" in row}
    forms = {row: chosen.get("form", "parallel") for row, chosen in options.items()}
    assert {row for row, form in forms.items() if form == "sequential"} == {"table8-slkd-star", "table9-slkd-star"}
    assert {chosen["self_teachers"] for chosen in options.values()} == {2}
    ablated = {row: SLKD[f"table7-{row}"]["vgg13-mobilenetv2"].method.options for row in (
        "teacher-only", "self-teacher-only", "both")}
    assert ablated == {"teacher-only": {"supervision": "teacher"},
                       "self-teacher-only": {"supervision": "self_teachers", "self_teachers": 1},
                       "both": {"supervision": "both", "self_teachers": 1}}


def test_imagenet_has_the_settings_and_no_numbers() -> None:
    for job in SLKD["imagenet-slkd"].values():
        assert (job.optimizer.lr, job.optimizer.weight_decay, job.training.batch_size) == (0.2, 1e-4, 512)
        assert [drop * job.training.epochs for drop in job.schedule.drops] == pytest.approx([30, 60, 90])
        assert job.method.options == {"self_teachers": 2, "ce": 0.5, "kl": 0.5, "temperature": 1}
        assert job.recipe.paper is None
