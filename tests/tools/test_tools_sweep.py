"""Sweeps: what a bench asks for, all its mistakes at once, and the queue that is stopped and goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from limbeck.errors import Mistake, Stopped
from limbeck.progress import Display
from limbeck.runs import runs_in
from limbeck.sweeps.plan import Piece, Plan, plan
from limbeck.sweeps.workers import Workers, _alone, gpus

Bench = Callable[..., Path]

PLAIN = """
    folder: runs
    common: {data: digits, training: {epochs: 2, check_teacher: false}, student: {statistics: imagenet}}
    teachers:
      large: {student: digits_large, training: {epochs: 3}}
    pairs:
      ls: {teacher: large, student: digits_small}
      ll: {teacher: large, student: {name: digits_large}}
    methods:
      alone: {method: none}
      kd: {method: {name: kd, temperature: 2}, pairs: {ls: {recipe: {paper: 97.1}, method: {temperature: 3}}}}
    seeds: [4, 5]
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Writes a bench, in whose folder the test then is."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = PLAIN, name: str = "bench.yaml") -> Path:
        Path(name).write_text(dedent(text))
        return Path(name)
    return write


# --- what is asked for


def test_methods_by_pairs_by_seeds(bench: Bench) -> None:
    pieces = plan([bench()]).pieces
    assert list(pieces) == ["teachers/large", "alone/ls/4", "alone/ls/5", "alone/ll/4", "alone/ll/5",
                            "kd/ls/4", "kd/ls/5", "kd/ll/4", "kd/ll/5"]
    assert {name: piece.after for name, piece in pieces.items() if piece.after} == {
        name: "teachers/large" for name in pieces if name.startswith("kd")}
    assert [pieces[name].verb for name in ("teachers/large", "alone/ls/4", "kd/ls/4")] == ["train", "train", "distill"]


def test_later_layers_are_on_top(bench: Bench) -> None:
    pieces = plan([bench()], over={"training.epochs": 7, "recipe.about": "here"}).pieces
    job = pieces["kd/ls/5"].job
    assert (job.student.name, job.student.statistics) == ("digits_small", "imagenet")
    assert job.method.options == {"temperature": 3}
    assert pieces["kd/ll/5"].job.method.options == {"temperature": 2}
    assert (job.training.epochs, job.training.check_teacher, job.seed, job.recipe.paper) == (7, False, 5, 97.1)
    assert job.teacher.name == str(Path("runs/teachers/large"))
    assert pieces["alone/ls/4"].job.teacher is None
    teacher = pieces["teachers/large"].job
    assert (teacher.student.name, teacher.training.epochs, teacher.method.name) == ("digits_large", 7, "none")
    assert teacher.recipe.about == ""


def test_whoever_has_no_teacher_has_no_cache(bench: Bench) -> None:
    pieces = plan([bench(PLAIN.replace("common: {", "common: {cache: outputs, "))]).pieces
    assert {name for name, piece in pieces.items() if piece.job.cache.folder == "outputs"} == {
        name for name in pieces if name.startswith("kd")}


def test_any_setting_varies_and_one_search_serves_all(bench: Bench) -> None:
    text = PLAIN + """
    searches:
      once: {method: distpro, search: {epochs: 1}}
    lengths: [1, 2.5]
    vary: {data.classes: [3, null]}
"""
    text = text.replace("      kd: ", "      distpro: {method: distpro, process: {file: once}}\n      kd: ")
    made = plan([bench(text)], seeds=[7])
    names = [name for name in made.pieces if name.startswith(("searches", "distpro/ls"))]
    assert names == ["searches/once/ls", "searches/once/ll", "distpro/ls/epochs-1,classes-3/7",
                     "distpro/ls/epochs-1,classes-None/7", "distpro/ls/epochs-2.5,classes-3/7",
                     "distpro/ls/epochs-2.5,classes-None/7"]
    search, run = made.pieces["searches/once/ls"], made.pieces["distpro/ls/epochs-2.5,classes-3/7"]
    assert (search.verb, search.after, search.job.search.epochs, search.job.seed) == ("search", "teachers/large", 1, 7)
    assert (run.verb, run.after, run.job.process.file) == ("distill", search.name, f"runs/{search.name}")
    assert (run.job.training.epochs, run.job.data.classes) == (2.5, 3)
    assert made.pieces["distpro/ls/epochs-1,classes-None/7"].job.data.classes is None
    assert made.pieces["teachers/large"].job.training.epochs == 3


def test_names_alone_are_methods(bench: Bench) -> None:
    text = PLAIN.partition("    methods:")[0] + "    methods: [none, kd]\n"
    assert [name for name in plan([bench(text)], seeds=[0]).pieces if name.startswith(("none", "kd"))] == [
        "none/ls/0", "none/ll/0", "kd/ls/0", "kd/ll/0"]
    kd = plan([bench(PLAIN.partition("    methods:")[0] + "    methods: {x: kd}\n")]).pieces["x/ls/0"]
    assert kd.job.method.name == "kd"


def test_the_same_run_is_done_once(bench: Bench) -> None:
    made = plan([bench(PLAIN.replace("training: {epochs: 3}", "seed: 5"))])
    assert made.same == {"alone/ll/5": "teachers/large"}
    assert "alone/ll/5" not in made.pieces
    assert "alone/ll/5  the same as teachers/large" in str(made)


def test_two_names_of_one_teacher_are_one_run(bench: Bench) -> None:
    text = PLAIN.replace("teachers:\n", "teachers:\n      big: {student: digits_large, training: {epochs: 3}}\n")
    made = plan([bench(text)])
    assert made.same["teachers/large"] == "teachers/big"
    assert made.pieces["kd/ls/4"].after == "teachers/big"
    assert made.pieces["kd/ls/4"].job.teacher.name == "runs/teachers/big"


def test_a_checkpoint_is_no_teacher_of_the_bench(bench: Bench) -> None:
    Path("large.pth").touch()
    text = PLAIN.replace("ls: {teacher: large,", "ls: {teacher: digits_large@large.pth,").replace(
        "large: {student", "digits_large: {student").replace("ll: {teacher: large", "ll: {teacher: digits_large")
    pieces = plan([bench(text)]).pieces
    assert pieces["kd/ls/4"].after is None
    assert pieces["kd/ll/4"].after == "teachers/digits_large"


def test_recipes_are_rows_with_pairs_of_their_own(bench: Bench) -> None:
    recipe = bench("""
        data: digits
        method: kd
        recipe: {about: here}
        pairs:
          a: {student: digits_small, teacher: runs/teachers/large, recipe: {paper: 1.0}}
          a-top5: {student: digits_small, teacher: runs/teachers/large, recipe: {paper: 2.0, metric: top5}}
          b: {student: digits_large, teacher: runs/teachers/large}
    """, "row.yaml")
    with pytest.raises(Mistake, match="runs/teachers/large is no folder of a finished run"):
        plan([recipe], folder=Path("out"))
    text = PLAIN.partition("    pairs:")[0] + "    recipes: [row.yaml]\n"
    made = plan([bench(text)], seeds=[0, 1])
    assert list(made.pieces) == ["teachers/large", "row/a/0", "row/a/1", "row/b/0", "row/b/1"]
    assert made.same == {"row/a-top5/0": "row/a/0", "row/a-top5/1": "row/a/1"}
    assert made.pieces["row/a/0"].after == "teachers/large"
    assert made.pieces["row/a/0"].job.recipe.paper == 1.0


def test_recipes_of_one_name_are_told_apart(bench: Bench) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir(exist_ok=True)
        bench(f"data: digits\nstudent: digits_small\nmethod: none\noptimizer: {{lr: 0.{'ab'.index(folder) + 1}}}\n",
              f"{folder}/row.yaml")
    made = plan([Path("a/row.yaml"), Path("b/row.yaml")], folder=Path("out"))
    assert list(made.pieces) == ["a-row/0", "b-row/0"]


def test_a_recipe_needs_no_bench(bench: Bench) -> None:
    recipe = bench("data: digits\nstudent: digits_small\nmethod: none\n", "row.yaml")
    made = plan([recipe], folder=Path("out"), seeds=[3])
    assert list(made.pieces) == ["row/3"]
    assert made.folder == Path("out")


# --- mistakes


def test_all_mistakes_are_told_at_once(bench: Bench) -> None:
    text = PLAIN.replace("digits_small", "digits_smal").replace("temperature: 2", "temprature: 2").replace(
        "epochs: 3", "epochs: -3").replace("ls: {recipe", "sl: {recipe").replace("alone:", "al/one:")
    with pytest.raises(Mistake) as mistake:
        plan([bench(text)])
    said = str(mistake.value)
    for part in ("names become folders; 'al/one'", "training.epochs = -3", "there is no pair 'sl'; closest",
                 "there is no setting temprature", "got 'digits_smal'"):
        assert said.count(part) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(("text", "told"), [
    ("seeds: [1]\nmethods: [kd]\n", "folder is needed and was not given"),
    ("folder: x\nmethods: [kd]\n", "methods are done on pairs; got 1 methods and 0 pairs"),
    ("folder: x\nmethod: [kd]\nmethods: [kd]\n", "there is no setting method; closest: ['methods'"),
    ("folder: x\nmethods: {kd: 3}\n", "methods.kd"),
    ("folder: x\nmethods: 3\n", "methods = 3"),
    ("folder: x\nseeds: []\nmethods: [kd]\n", "seeds = []"),
    ("folder: x\nrecipes: [nowhere.yaml]\n", "there is none at nowhere.yaml"),
    ("data: digits\n", "a sweep of recipes needs --folder"),
])
def test_what_is_no_bench_is_told(text: str, told: str, bench: Bench) -> None:
    with pytest.raises(Mistake) as mistake:
        plan([bench(text)])
    assert told in str(mistake.value)


def test_two_benches_are_one_too_many(bench: Bench) -> None:
    with pytest.raises(Mistake, match="a sweep takes one bench, or recipes"):
        plan([bench(), bench(name="other.yaml")])


def test_what_limbeck_lacks_is_told(bench: Bench) -> None:
    recipe = bench("data: digits\nstudent: digits_small\nmethod: none\nrecipe: {needs: the moon}\n", "row.yaml")
    with pytest.raises(Mistake, match="row: it needs the moon, which limbeck lacks"):
        plan([recipe], folder=Path("out"))


def test_another_run_in_a_folder_is_told_before_anything_runs(bench: Bench) -> None:
    made = plan([bench()])
    made.run(made.pieces["kd/ls/4"]).start(made.pieces["kd/ll/4"].job)
    with pytest.raises(Mistake, match=r"kd/ls/4: .*holds a run with other settings"):
        plan([bench()])


# --- the queue

DOES = """
import json, signal, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
with Path("order").open("a") as file: file.write(name + "\\n")
if name in {fails}: sys.exit("error: it could not be")
if name in {waits}:
    signal.signal(signal.SIGTERM, lambda *_: ((folder / "checkpoint.pt").touch(), sys.exit(130)))
    Path("waiting").touch()
    time.sleep(20)
(folder / "metrics.jsonl").write_text(json.dumps({{"epoch": 2.0}}) + "\\n")
(folder / "result.json").write_text(json.dumps({{"test": {{"last": {{"top1": 50.0}}}}}}))
"""


class Quick(Workers):
    """Workers whose runs are a line each in a file, and an end."""

    pause = 0.01
    fails: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()

    def words(self, piece: Piece) -> list[str]:
        script = DOES.format(fails=self.fails, waits=self.waits)
        return [sys.executable, "-c", script, str(self.plan.run(piece).folder), piece.name]


def quick(made: Plan, count: int = 1, **how: tuple[str, ...]) -> Quick:
    workers = Quick(made, count=count, device="cpu", display=Display(quiet=False))
    workers.fails, workers.waits = how.get("fails", ()), how.get("waits", ())
    return workers


def order() -> list[str]:
    done = Path("order").read_text().splitlines()
    Path("order").unlink()
    return done


@pytest.mark.parametrize("count", [1, 3])
def test_every_run_is_done_after_its_teacher(count: int, bench: Bench, capfd: pytest.CaptureFixture) -> None:
    made = plan([bench()])
    quick(made, count).run()
    done = order()
    assert sorted(done) == sorted(made.pieces)
    assert done.index("teachers/large") < min(i for i, name in enumerate(done) if name.startswith("kd"))
    said = capfd.readouterr().err
    assert "test top1 50  9 of 9 done  left 0 s" in said
    assert len(runs_in(Path("runs"))) == 9


def test_what_is_finished_is_skipped(bench: Bench, capfd: pytest.CaptureFixture) -> None:
    made = plan([bench()])
    quick(made).run()
    order()
    (made.folder / "kd/ls/5/result.json").unlink()
    quick(plan([bench()])).run()
    assert order() == ["kd/ls/5"]
    assert "8 of 9 runs are finished already" in capfd.readouterr().err
    assert "kd/ls/5  finished" in str(plan([bench()]))


def test_a_run_that_fails_is_told_and_the_others_go_on(bench: Bench) -> None:
    with pytest.raises(Mistake) as mistake:
        quick(plan([bench()]), fails=("alone/ls/4",)).run()
    assert len(order()) == 9
    assert "1 of 9 runs failed" in str(mistake.value)
    assert "alone/ls/4: it could not be (all that it said: runs/logs/alone-ls-4.log)" in str(mistake.value)
    quick(plan([bench()])).run()
    assert order() == ["alone/ls/4"]


def test_nothing_learns_from_a_teacher_that_failed(bench: Bench) -> None:
    with pytest.raises(Mistake) as mistake:
        quick(plan([bench()]), fails=("teachers/large",)).run()
    assert [name for name in order() if name.startswith("kd")] == []
    assert "5 of 9 runs failed" in str(mistake.value)
    assert "kd/ll/5: teachers/large, which it learns from, failed" in str(mistake.value)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_it_saves_its_runs_and_goes_on_later(signum: int, bench: Bench) -> None:
    made = plan([bench()])

    def stop() -> None:
        while not Path("waiting").exists():
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signum)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match=r"1 of 9 runs are finished\. The same command goes on"):
        quick(made, waits=("alone/ls/4",)).run()
    assert order() == ["teachers/large", "alone/ls/4"]
    assert (made.folder / "alone/ls/4/checkpoint.pt").exists()
    assert "alone/ls/4  begun" in str(made)
    quick(plan([bench()])).run()
    assert order()[0] == "alone/ls/4"


def test_two_sweeps_in_one_folder_are_one_too_many(bench: Bench) -> None:
    made = plan([bench()])
    with _alone(made.folder), pytest.raises(Mistake, match="another sweep, or a run that one left behind, is at work"):
        quick(made).run()
    quick(made).run()


def test_workers_share_out_gpus_and_cores(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = plan([bench()])
    assert Workers(made).count == 2
    workers = Workers(made, count=3)
    given = [workers._environment(place) for place in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in given] == ["0", "1", "0"]
    assert {one["OMP_NUM_THREADS"] for one in given} == {"2"}
    assert Workers(made, device="cpu").count == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus() == ["3", "5"]


# --- from the command line


def test_a_sweep_from_the_command_line(limbeck: Callable[..., int], bench: Bench, capfd: pytest.CaptureFixture) -> None:
    file = bench("""
        folder: runs
        common: {data: {source: digits, classes: 2, per_class: 20}, training: {epochs: 1}}
        pairs: {small: {student: digits_small}}
        methods: [none]
        seeds: [0, 1]
    """)
    assert limbeck("sweep", file, "--dry-run") == 0
    assert capfd.readouterr().out.splitlines() == ["none/small/0  to do", "none/small/1  to do"]
    assert limbeck("sweep", file, "--jobs", "2", "--device", "cpu", "--set", "optimizer.lr=0.01") == 0
    assert "all 2 runs are finished; compare them with: limbeck table runs" in capfd.readouterr().out
    for seed in (0, 1):
        settings = yaml.safe_load(Path(f"runs/none/small/{seed}/config.yaml").read_text())
        assert (settings["seed"], settings["optimizer"]["lr"]) == (seed, 0.01)
        assert "top1" in json.loads(Path(f"runs/none/small/{seed}/result.json").read_text())["test"]["last"]
    assert limbeck("table", "runs", "--against", "none") == 0
    assert "n = " not in capfd.readouterr().out


def test_a_failed_sweep_ends_with_2(limbeck: Callable[..., int], bench: Bench, capfd: pytest.CaptureFixture) -> None:
    assert limbeck("sweep", bench(PLAIN.replace("large-small", "large").replace("kd,", "kdd,"))) == 2
    assert "there is no method 'kdd'" in capfd.readouterr().err
