"""The way to a device machine and back, with a stand-in for Python there; and the commands of the queue."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck import jobs, wiring
from limbeck.cli import app
from limbeck.config import Job

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RUNS = "bash benchmarks/on_gpu.sh run"

# Fills a run's folder as limbeck would: 200 kB of checkpoint, and a result unless it has `slow` in its name.
STAND_IN = """#!/usr/bin/env bash
[ "$2" != "import pydantic, typing_inspection" ] || exit 0
folder=$(sed -E 's/.*--run ([^ ]+).*/\\1/' <<< "$*")
mkdir -p "$folder"
head -c 200000 /dev/urandom > "$folder/checkpoint.pt"
echo '{"kind": "train", "images_per_second": 1234.5}' > "$folder/metrics.jsonl"
case $folder in *slow*) ;; *) echo '{}' > "$folder/result.json" ;; esac
echo "all is well"
"""


class Machine:
    """A folder with the script in it, and a folder for what comes back."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder / "out"
        (folder / "benchmarks").mkdir(parents=True)
        self.out.mkdir()
        shutil.copy(BENCHMARKS / "on_gpu.sh", folder / "benchmarks")
        (folder / "python").write_text(STAND_IN)
        (folder / "python").chmod(0o755)

    def call(self, *words: str) -> str:
        script, own = self.folder / "benchmarks" / "on_gpu.sh", {"PYTHON": self.folder / "python", "OUT": self.out}
        return subprocess.run(["bash", script, *words], capture_output=True, text=True, check=True,
                              env={**os.environ, **{name: str(path) for name, path in own.items()}}).stdout

    def files(self, place: str = "runs") -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in (self.folder / place).rglob("*") if path.is_file())


@pytest.fixture
def there(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "here")


def test_what_is_finished_comes_back_without_its_checkpoint(there: Machine, here: Machine) -> None:
    said = there.call("run", "train --run runs/a --seed 1", "train --seed 2 --run runs/slow")
    assert re.search(r"== runs/a: finished\nall is well\n\"images_per_second\": 1234\n", said)
    assert "== runs/slow: NOT finished" in said
    here.call("fetch", str(there.out))
    assert here.files() == ["runs/a.log", "runs/a/metrics.jsonl", "runs/a/result.json", "runs/slow.log",
                            "runs/slow/checkpoint.pt", "runs/slow/metrics.jsonl"]
    name = "runs/slow/checkpoint.pt"
    assert (here.folder / name).read_bytes() == (there.folder / name).read_bytes()


def test_runs_of_one_call_come_back_together(there: Machine, here: Machine) -> None:
    there.call("run", "train --run runs/a")
    there.call("run", "train --run runs/b")
    here.call("fetch", str(there.out))
    assert [name for name in here.files() if name.endswith(".json")] == ["runs/a/result.json", "runs/b/result.json"]


def test_what_is_large_comes_back_four_pieces_at_a_time(there: Machine, here: Machine) -> None:
    script = there.folder / "benchmarks" / "on_gpu.sh"
    script.write_text(script.read_text().replace("16000000", "40000"))
    assert "2 pieces are left" in there.call("run", "train --run runs/slow")
    assert "4 of 6 pieces are in" in here.call("fetch", str(there.out))
    assert here.files() == []
    for piece in there.out.iterdir():  # a call finds $OUT empty
        piece.unlink()
    assert "0 pieces are left" in there.call("more")
    here.call("fetch", str(there.out))
    assert "runs/slow/checkpoint.pt" in here.files()


def test_folders_that_are_sent_are_there_for_the_next_run(there: Machine, here: Machine) -> None:
    (here.folder / "runs/teacher").mkdir(parents=True)
    (here.folder / "runs/teacher/network.json").write_text("{}")
    here.call("send", "runs/teacher")
    shutil.copytree(here.folder / ".packed", there.folder / ".packed")
    there.call("run", "distill --teacher runs/teacher --run runs/a")
    assert "runs/teacher/network.json" in there.files()
    assert not (there.folder / ".packed/send").exists()


def queue() -> list[str]:
    """Every command of gpu.md, as the shell gives it to the script."""
    first, *blocks = re.findall(r"```bash\n(.*?)```", (BENCHMARKS / "gpu.md").read_text(), re.DOTALL)
    stubbed = [block.replace(RUNS, r"printf '%s\n'") for block in blocks]
    said = [subprocess.run(["bash", "-euc", first + block], capture_output=True, text=True, check=True).stdout
            for block in stubbed]
    return [line for text in said for line in text.splitlines()]


def test_every_command_of_the_queue_is_one_that_limbeck_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BENCHMARKS.parent)
    taken: list[tuple[str, Job, str]] = []

    def take(verb: str, job: Job, run: Path, **_: Any) -> None:
        wiring.own_options(job.method)
        taken.append((verb, job, str(run)))

    monkeypatch.setattr(jobs, "execute", take)
    commands = queue()
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, f"{command}\n{done.output}{done.exception}"
    assert len(taken) == len(commands) > 30
    assert len({run for _, _, run in taken}) == len(taken)
    assert {verb for verb, _, _ in taken} == {"train", "search", "distill"}
    for verb, job, run in taken:
        assert job.data.source == "packed:.packed/tiny-imagenet-100"
        assert run.startswith("runs/h200/")
        full = 300 if "/ffsd/" in run else 240
        assert (job.training.epochs == full) != ("/speed/" in run and verb != "search")


def test_whom_the_protocols_of_slkd_and_ffsd_still_lack() -> None:
    made = {words[words.index("--run") + 1] for words in map(shlex.split, queue())}
    rows = ("student", "kd", "dkd", "reviewkd", "crd", "slkd", "slkd-star")
    for pair in ("resnet32x4-resnet8x4", "vgg13-mobilenetv2"):
        assert {f"runs/h200/slkd/{pair}/{row}-0" for row in rows} <= made
    for network in ("resnet32", "wrn_16_2"):
        assert {f"runs/h200/ffsd/{network}/{row}-{seed}" for row in ("baseline", "ffsd") for seed in range(3)} <= made


def test_what_a_command_of_the_queue_needs_comes_before_it() -> None:
    made: set[str] = set()
    for words in map(shlex.split, queue()):
        for flag in ("--teacher", "--process"):
            if flag in words and (needed := words[words.index(flag) + 1]).startswith("runs/"):
                assert needed in made
        made.add(words[words.index("--run") + 1])
