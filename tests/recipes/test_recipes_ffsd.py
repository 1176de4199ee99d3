"""FFSD's recipes: every number of its Tables I to VI, each with whose it is, under the settings of its experiments."""

from pathlib import Path

import pytest

from limbeck.sweeps import recipes

FOLDER = Path(__file__).parents[2] / "recipes" / "ffsd"
FFSD = {recipe.file.stem: recipe.jobs for recipe in recipes.find_recipes(FOLDER)}

WHOSE = {"common1": "top1 of student1", "common2": "top1 of student2", "ens": "top1 of any member right",
         "fusion": "top1 of fusion", "average": "top1 of student1 and student2", "": "top1",
         "cosine": "features of cosine similarity"}
NETWORKS = {"resnet20": "resnet20", "resnet32": "resnet32", "resnet56": "resnet56", "wrn_16_2": "ffsd_wrn_16_2",
            "wrn_40_2": "ffsd_wrn_40_2", "googlenet": "googlenet", "densenet_40_12": "densenet_40_12"}

# Copied from the paper, apart from the recipes.
TABLE1 = {  # baseline, common 1, common 2, ens, fusion, leader, each with its deviation
    "resnet20": (68.58, .26, 72.07, .21, 71.95, .12, 77.44, .14, 73.43, .13, 72.70, .13),
    "resnet32": (69.96, .30, 74.30, .10, 74.34, .21, 79.93, .11, 76.04, .17, 74.85, .05),
    "resnet56": (71.55, .50, 75.64, .23, 75.78, .43, 81.51, .16, 77.28, .26, 75.80, .11),
    "wrn_16_2": (71.97, .09, 75.51, .12, 75.44, .25, 80.26, .25, 76.69, .11, 75.81, .08),
    "wrn_40_2": (75.58, .17, 78.85, .26, 78.83, .21, 83.95, .26, 80.24, .29, 79.14, .03),
    "googlenet": (78.28, .24, 81.51, .07, 81.58, .16, 85.28, .13, 82.42, .08, 81.60, .25),
    "densenet_40_12": (73.70, .10, 76.87, .25, 77.01, .06, 81.60, .12, 78.34, .14, 77.39, .23)}
TWO = {  # ResNet-32, WRN-16-2
    "table2-baseline": (69.96, 71.97), "table2-kd": (72.87, 73.79), "table2-at": (71.23, 73.70),
    "table2-dml": (73.64, 74.63), "table2-afd": (74.03, 75.33), "table2-amln": (74.69, 75.56),
    "table2-one": (73.39, 74.84), "table2-ffl": (74.44, 75.26), "table2-kdcl": (74.30, 75.50),
    "table2-okddip": (74.60, 75.31), "table2-ffsd": (74.85, 75.81), "table5-dml": (73.64, 74.63),
    "table5-dml-leader": (74.02, 75.15), "table5-one": (73.39, 74.84), "table5-one-leader": (73.98, 75.44)}
TABLE3 = {"table3-baseline": (69.7, 73.2), "table3-dml": (69.8, 74.0), "table3-one": (70.2, 74.1),
          "table3-kdcl": (70.4, 74.4), "table3-ffsd": (70.9, 74.7)}  # ResNet-18, ResNet-34
COMMON3 = {"resnet18-common1": 70.15, "resnet18-common2": 70.18, "resnet34-common1": 74.16, "resnet34-common2": 74.25}
TABLE4 = {  # average, fusion, cosine of ResNet-32; the same of WRN-16-2
    "table4-dml": (73.64, 75.15, .2635, 74.63, 76.18, .2787), "table4-l2": (73.19, 75.03, .2351, 74.69, 75.99, .2570),
    "table4-ffsd": (74.25, 76.04, .2550, 75.41, 76.69, .2491)}
TABLE6 = {  # average, fusion, leader of ResNet-32; the same of WRN-16-2
    "table6-l2": (73.19, 75.03, 73.78, 74.69, 75.99, 75.20), "table6-l2-sd": (73.75, 75.48, 74.27, 75.00, 76.15, 75.33),
    "table6-ffsd-without-sd": (73.69, 75.61, 73.94, 74.63, 76.05, 75.43),
    "table6-ffsd": (74.25, 76.04, 74.85, 75.41, 76.69, 75.81)}
TEXT = {"text-vgg16-ffsd": {"vgg16": 75.87}, "text-vgg16-end2": {"vgg16": 73.7},
        "text-ablations": {"self-distillation-of-students": 74.71, "self-distillation-of-leader": 74.04,
                           "no-fused-maps": 74.06, "six-students": 78.26}}


def whose(pair: str) -> str:
    """The player that a column belongs to; nothing for the network that ships."""
    player = pair.rpartition("-")[2]
    return player if "-" in pair and player in WHOSE else ""


def printed() -> dict[str, dict[str, float]]:
    """Row -> column -> number, from the tables above."""
    six = ("resnet32-average", "resnet32-fusion", "resnet32{}", "wrn_16_2-average", "wrn_16_2-fusion", "wrn_16_2{}")
    first = {f"{net}{suffix}": row[2 * place] for net, row in TABLE1.items()
             for place, suffix in enumerate(("-common1", "-common2", "-ens", "-fusion", ""), start=1)}
    return {
        "table1-baseline": {net: row[0] for net, row in TABLE1.items()}, "table1-ffsd": first,
        **{row: dict(zip(("resnet32", "wrn_16_2"), numbers, strict=True)) for row, numbers in TWO.items()},
        **{row: dict(zip(("resnet18", "resnet34"), numbers, strict=True)) | (COMMON3 if row == "table3-ffsd" else {})
           for row, numbers in TABLE3.items()},
        **{row: dict(zip([name.format("-cosine") for name in six], n, strict=True)) for row, n in TABLE4.items()},
        **{row: dict(zip([name.format("") for name in six], n, strict=True)) for row, n in TABLE6.items()}, **TEXT}


def test_every_number_is_there() -> None:
    assert {row: {pair: job.recipe.paper for pair, job in jobs.items()} for row, jobs in FFSD.items()} == printed()


def test_deviations_of_the_first_table() -> None:
    leader, ens = FFSD["table1-ffsd"], {net: row[7] for net, row in TABLE1.items()}
    assert {net: leader[f"{net}-ens"].recipe.deviation for net in TABLE1} == ens
    for place, suffix in enumerate(("-common1", "-common2", "-ens", "-fusion", ""), start=1):
        found = [leader[f"{net}{suffix}"].recipe.deviation for net in TABLE1]
        assert found == [row[2 * place + 1] for row in TABLE1.values()]
    assert [job.recipe.deviation for job in FFSD["table1-baseline"].values()] == [row[1] for row in TABLE1.values()]


def test_each_number_says_whose_it_is() -> None:
    for row, jobs in FFSD.items():
        for pair, job in jobs.items():
            wanted = "top1 of fusion" if pair == "six-students" else WHOSE[whose(pair)]
            if job.method.name == "dml" and "table3" not in row:
                wanted = "top1 of student and peer1"
            assert job.recipe.metric == wanted, (row, pair)


def test_columns_of_one_run_are_one_run() -> None:
    for row, jobs in FFSD.items():
        for pair, job in jobs.items():
            main = pair.removesuffix(f"-{whose(pair)}") if whose(pair) else pair
            same = [other for name, other in jobs.items() if name.startswith(f"{main}-") and whose(name)]
            for other in same:
                assert other.model_dump(exclude={"recipe"}) == job.model_dump(exclude={"recipe"}), (row, pair)


def test_the_settings_on_cifar_are_the_published_ones() -> None:
    rows = [row for row in FFSD if not row.startswith("table3") and row != "text-vgg16-end2"]
    for pair, job in (item for row in rows for item in FFSD[row].items()):
        assert job.data.model_dump(include={"augment", "padding", "padding_mode"}) == {
            "augment": "crop-flip", "padding": 4, "padding_mode": "reflect"}
        assert job.optimizer.model_dump(include={"name", "lr", "momentum", "nesterov", "weight_decay"}) == {
            "name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
        assert (job.training.epochs, job.training.batch_size, job.student.statistics) == (300, 128, "ffsd")
        assert [drop * 300 for drop in job.schedule.drops] == [150, 225]
        assert job.schedule.factor == 0.1
        net = pair.removesuffix(f"-{whose(pair)}") if whose(pair) else pair
        assert job.student.name == NETWORKS.get(net, "vgg16" if net == "vgg16" else "resnet32")


def test_the_settings_on_imagenet_are_the_released_ones() -> None:
    for job in (job for row in TABLE3 for job in FFSD[row].values()):
        assert (job.optimizer.lr, job.optimizer.weight_decay, job.training.batch_size) == (0.1, 1e-4, 256)
        assert [drop * 90 for drop in job.schedule.drops] == pytest.approx([30, 60, 80], abs=1e-3)
        assert job.schedule.warm_up * 90 == pytest.approx(5, abs=1e-3)
        assert job.method.options.get("warm_up", 5 / 90) * 90 == pytest.approx(5, abs=1e-3)


def test_rows_of_ablations_switch_what_they_leave_out() -> None:
    switches = {row: {key: value for key, value in next(iter(jobs.values())).method.options.items()
                      if key != "students"} for row, jobs in FFSD.items() if row.startswith(("table4", "table6"))}
    assert switches == {
        "table4-dml": {"diverse_by": "none"}, "table4-l2": {"diverse_by": "l2", "self_distillation": "none"},
        "table4-ffsd": {"diverse_by": "attention"}, "table6-l2": {"diverse_by": "l2", "self_distillation": "none"},
        "table6-l2-sd": {"diverse_by": "l2", "self_distillation": "both"},
        "table6-ffsd-without-sd": {"self_distillation": "none"}, "table6-ffsd": {"self_distillation": "both"}}
    assert {pair: job.method.options for pair, job in FFSD["text-ablations"].items()} == {
        "self-distillation-of-students": {"self_distillation": "students"}, "six-students": {"students": 6},
        "self-distillation-of-leader": {"self_distillation": "leader"}, "no-fused-maps": {"fusion": False}}
    assert {job.method.options["temperature"] for row in ("table2-dml", "table3-dml", "table5-dml")
            for job in FFSD[row].values()} == {2}
