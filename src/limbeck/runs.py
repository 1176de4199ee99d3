"""A run's folder: its settings, what it was made of, what it measured, its checkpoint and its student.

    config.yaml        the settings, complete
    about.json         version, commit, machine, data, networks
    metrics.jsonl      a record an epoch of training and of scores
    checkpoint.pt      everything that resuming needs
    student.safetensors, network.json     the network that ships, and how to build it
    process.safetensors                   of a search: what it found
    profile/                              with --profile: where the time of the first steps went
    result.json        the final scores, once the run is finished
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limbeck import __version__
from limbeck.config import Job, as_yaml, read_yaml, validated
from limbeck.errors import Mistake
from limbeck.files import unwritable, write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.members import Network


@dataclass(frozen=True)
class Run:
    """A folder that one job fills.

    Attributes:
        folder: Where.
    """

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def process(self) -> Path:
        return self.folder / "process.safetensors"

    @property
    def network(self) -> Path:
        return self.folder / "network.json"

    @property
    def weights(self) -> Path:
        return self.folder / "student.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the job is done."""
        return (self.folder / "result.json").is_file()

    def start(self, job: Job) -> None:
        """Claim the folder for a job, or find the same job already there.

        Raises:
            Mistake: If the folder holds another job, or something that is no run.
        """
        if not self.holds(job):
            write_whole(self.config, as_yaml(job))

    def holds(self, job: Job) -> bool:
        """Whether this very job is in the folder; False if nothing is.

        Raises:
            Mistake: If the folder holds another job, or something that is no run.
        """
        if self.config.is_file():
            before, now = (yaml.safe_load(as_yaml(one)) for one in (self.job(), job))  # settings new since are defaults
            if before != now:
                changed = ", ".join(_differences(before, now)) or "its layout"
                raise Mistake(f"{self.folder} holds a run with other settings (they differ in {changed}). "
                              f"Choose another --run, or repeat that run's settings to go on with it.")
            return True
        if self.folder.is_dir() and any(not path.name.endswith(".part") for path in self.folder.iterdir()):
            raise Mistake(f"{self.folder} is not empty and holds no run. Choose a new folder as --run.")
        return False

    def save_weights(self, network: Network, *, best: bool = False) -> None:
        """Write the plain network's weights, clean of all scaffolding.

        Args:
            network: The member that ships.
            best: Into `best.safetensors`, the epoch that the selection split likes best, in place of the last.
        """
        from safetensors.torch import save

        write_whole(self.folder / "best.safetensors" if best else self.weights, save(plain_weights(network)))

    def job(self) -> Job:
        """The settings of the run that is here.

        Raises:
            Mistake: If there is none.
        """
        if not self.config.is_file():
            raise Mistake(f"{self.folder} is no run: it holds no config.yaml. Give the folder that --run named.")
        return validated(Job, read_yaml(self.config))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one of the folder's small records."""
        write_whole(self.folder / name, json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read one of the folder's small records; empty where it is not there yet."""
        path = self.folder / name
        try:
            return json.loads(path.read_text()) if path.is_file() else {}
        except ValueError:
            raise Mistake(f"{path} cannot be read as JSON. Restore it, or run again into another folder.") from None

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Append to the metrics."""
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise unwritable(self.metrics, error) from None

    def records(self) -> list[dict[str, Any]]:
        """All metrics so far; a half-written last line is left out."""
        if not self.metrics.is_file():
            return []
        found = []
        for line in self.metrics.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def cut_records(self, count: int) -> None:
        """Drop what was measured after a checkpoint that knew this many records."""
        lines = [json.dumps(record) for record in self.records()[:count]]
        write_whole(self.metrics, "".join(line + "\n" for line in lines))


def plain_weights(network: Network) -> dict[str, Tensor]:
    """The plain network's state, clean of all scaffolding, as safetensors files hold it."""
    state = network.deployed().state_dict()
    return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def runs_in(folder: Path) -> list[Path]:
    """The folder if it is a run, or all runs below it by name; a run's own search is not among them."""
    if Run(folder).config.is_file():
        return [folder]
    below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [run for path in below for run in runs_in(path)]


def about(**more: Any) -> dict[str, Any]:
    """What a record needs to be repeated: versions, commit, machine, command."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"limbeck": __version__, "torch": torch.__version__, "python": platform.python_version(), "commit": commit(),
            "device": device, "cores": os.cpu_count(), "command": sys.argv, **more}


def commit() -> str | None:
    """The commit of limbeck's own checkout, `+` behind it if there are changes; None outside one."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True,
                              check=True, timeout=5).stdout.strip()
    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _differences(before: Any, now: Any, place: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [d for key in keys for d in _differences(before.get(key), now.get(key), f"{place}.{key}".lstrip("."))]
    return [] if before == now else [place]
