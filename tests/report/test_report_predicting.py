"""What networks say of dense tasks: of which images, in which columns and colours, on the page, and as a command."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.config import DataSettings, NetworkSettings
from limbeck.data import open_data
from limbeck.errors import Mistake
from limbeck.jobs.finished import Finished
from limbeck.report import comparing, pictures, predicting, write_page
from limbeck.report.comparing import predictions
from limbeck.report.predicting import predicted
from limbeck.runs import Run
from limbeck.sources import describe, open_network

NETWORKS = """
from torch import nn


def small(num_classes, channels=3):
    return nn.Conv2d(channels, num_classes, 3, 2, 1)


def large(num_classes, channels=3):
    return nn.Conv2d(channels, num_classes, 5, 2, 2)
"""


def scenes(folder: Path, kind: str) -> None:
    """Five random pictures a split, each with three classes or up to 4 m; a void pixel, or two without a reading."""
    chance = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(5):
            pixels = chance.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            maps = (chance.integers(0, 3, (6, 8), dtype=np.uint8) if kind == "labels"
                    else chance.integers(500, 4000, (6, 8), dtype=np.uint16))
            maps[0, :2] = (255, maps[0, 1]) if kind == "labels" else 0
            for place, values in (("images", pixels), (kind, maps)):
                (folder / place / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / place / split / f"{i}.png")


@pytest.fixture
def trained(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A finished run on tiny scenes, its network as random as its seed."""
    (tmp_path / "said_nets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)

    def train(name: str, method: str = "kd", *, kind: str = "labels", seed: int = 0, size: tuple[int, int] = (6, 8),
              sparse: int = 0, student: str = "small", **settings: object) -> Path:
        folder = tmp_path / kind
        if not folder.is_dir():
            scenes(folder, kind)
        own = {"source": str(folder), "size": size, "sparse_depth": sparse}
        verb = "train" if settings.get("teacher", 0) is None else "distill"
        run = Run(make(name, method=method, verb=verb, student=f"py:said_nets:{student}", data=own, seed=seed,
                       epochs=2, **settings))
        data = open_data(DataSettings(**own))
        torch.manual_seed(seed)
        network = open_network(NetworkSettings(name=f"py:said_nets:{student}"), data)
        run.save_weights(network)
        run.write_json("network.json", describe(network, data.classes, data.task))
        about = {"name": data.name, "task": data.task.name, "fingerprint": data.fingerprint}
        run.write_json("about.json", run.read_json("about.json") | {"data": about})
        return run.folder

    return train


@pytest.fixture
def bench(trained: Callable[..., Path]) -> dict[str, Path]:
    """A teacher, a student alone, two that were taught."""
    teacher = trained("teacher", "none", teacher=None, seed=5, student="large")
    return {"none": trained("alone", "none", teacher=None, seed=6),
            **{name: trained(name, name, teacher=str(teacher), seed=seed) for name, seed in (("kd", 0), ("at", 1))}}


def drawn(path: Path, rows: list[int]) -> np.ndarray:
    """What a run's network says, the plain way."""
    run = Finished.reopen(path, device="cpu")
    batch = next(run.test().epoch())
    with torch.no_grad():
        output = run.network.module.eval()((batch.images - run.network.mean) / run.network.std)
    large = torch.nn.functional.interpolate(output, (6, 8), mode="bilinear")
    maps = large.argmax(1) if run.data.task.name == "segmentation" else large[:, 0]
    return run.data.task.draw(batch.images, maps)[rows].permute(0, 2, 3, 1).numpy()


def test_each_column_is_what_its_network_says_beside_the_truth(bench: dict[str, Path]) -> None:
    taught_first = {name: bench[name] for name in ("kd", "none", "at")}
    found = predicted(taught_first, count=3, device="cpu")
    assert [column.who for column in found.columns] == ["image", "truth", "teacher", "student alone", "kd", "at"]
    folders = [bench["kd"].parent / "teacher", bench["none"], bench["kd"], bench["at"]]
    for column, folder in zip(found.columns[2:], folders, strict=True):
        np.testing.assert_array_equal(column.pictures, drawn(folder, [0, 2, 4]))
    run = Finished.reopen(bench["kd"], device="cpu")
    batch = next(run.test().epoch())
    truth = run.data.task.draw(batch.images, batch.targets)[[0, 2, 4]].permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found.columns[1].pictures, truth)
    assert (found.columns[1].pictures[:, 0, 0] == 0).all()  # void
    assert (found.columns[2].pictures.sum(-1) > 0).all()
    photographs = (batch.images[[0, 2, 4]] * 255).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found.columns[0].pictures, photographs)


def test_the_picture_has_a_column_each_and_names_the_classes_that_occur(bench: dict[str, Path]) -> None:
    found = predicted(bench, count=2, device="cpu")
    figure = predictions(found, captioned=True)
    FigureCanvasAgg(figure).draw()
    assert [axes.get_title("left") for axes in figure.axes[:6]] == [
        "image", "truth", "teacher", "student alone", "kd", "at"]
    assert len(figure.axes) == 2 * 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2"]
    colours = {tuple(np.round(np.array(patch.get_facecolor()[:3]) * 255).astype(int)) for patch in legend.get_patches()}
    assert colours >= {tuple(pixel) for column in found.columns[1:] for pixel in column.pictures.reshape(-1, 3)} - {
        (0, 0, 0)}
    assert "Test images of labels. Teacher: py:said_nets:large. Students: py:said_nets:small." in (
        figure.get_suptitle().replace("\n", " "))


def test_on_a_phone_everyone_is_below_the_other(bench: dict[str, Path]) -> None:
    figure = predictions(predicted(bench, count=4, device="cpu"), narrow=True)
    assert [axes.get_title("left") for axes in figure.axes[::2]] == [
        "image", "truth", "teacher", "student alone", "kd", "at"]


def test_depth_has_one_scale_in_metres(trained: Callable[..., Path]) -> None:
    runs = {"none": trained("alone", "none", kind="depth", teacher=None),
            "none, wide": trained("sparse", "none", kind="depth", teacher=None, seed=1, sparse=5)}  # four channels
    found = predicted(runs, device="cpu")
    assert [column.who for column in found.columns] == ["image", "truth", "student alone", "student alone, wide"]
    figure = predictions(found)
    FigureCanvasAgg(figure).draw()
    bar = figure.axes[-1]
    assert bar.get_xlabel() == "depth in metres"
    assert bar.get_xlim() == (0, Finished.reopen(runs["none"], device="cpu").data.task.farthest)
    np.testing.assert_array_equal(found.columns[2].pictures, drawn(runs["none"], [0, 1, 3, 4]))
    assert not found.columns[1].pictures[:, 0, :2].any()  # no reading


def test_large_images_are_shown_smaller(bench: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "_PIXELS", 4)
    assert {column.pictures.shape for column in predicted(bench, device="cpu").columns} == {(4, 3, 4, 3)}


def test_one_truth_and_maps_are_needed(bench: dict[str, Path], trained: Callable[..., Path],
                                       make: Callable[..., Path]) -> None:
    other = trained("larger", "none", teacher=None, size=(9, 12))
    with pytest.raises(Mistake, match=r"larger is scored on other images or maps than .*alone. Give runs on the same"):
        predicted({"none": bench["none"], "none, larger": other}, device="cpu")
    digits = Run(make("digits", method="none", teacher=None, student="digits_small"))
    data = open_data(DataSettings(source="digits"))
    network = open_network(NetworkSettings(name="digits_small"), data)
    digits.save_weights(network)
    digits.write_json("network.json", describe(network, data.classes, data.task))
    with pytest.raises(Mistake, match=r"shows maps; .*digits is a run of classification. Give runs of segmentation"):
        predicted({"none": digits.folder}, device="cpu")


# --- from the command line, and on the page


def test_predictions_from_the_command_line(bench: dict[str, Path], tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], int]] = []

    def draw(found: predicting.Predictions, **how: bool) -> object:
        seen.append(([column.who for column in found.columns], len(found.columns[0].pictures)))
        return predictions(found, **how)

    monkeypatch.setattr(comparing, "predictions", draw)
    folders = [str(bench["kd"].parent / "teacher"), *map(str, bench.values())]
    words = ["plot", "predictions", *folders, "--out", str(tmp_path / "a.png"), "--device", "cpu", "--images", "2"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert seen == [(["image", "truth", "teacher", "student alone", "kd", "at"], 2)]
    for what, images in (("curves", 2), ("predictions", 0)):
        with pytest.raises(Mistake, match=f"got {images} for {what}. Leave it out"):
            pictures.draw(what, list(bench.values()), tmp_path / "b.png", images=images)


def test_the_page_shows_each_teachers_students_once(bench: dict[str, Path], trained: Callable[..., Path],
                                                    tmp_path: Path) -> None:
    teacher = bench["kd"].parent / "teacher"
    second = trained("kd1", "kd", teacher=str(teacher), seed=8)
    depth = trained("rooms", "none", kind="depth", teacher=None)
    page = write_page([teacher, bench["kd"], second, bench["at"], depth], tmp_path / "page.html").read_text()
    (section,) = re.findall(r"<h2>Predictions</h2>.*?</section>", page, re.DOTALL)
    wide = re.findall(r'<div class="wide">.*?</svg>', section, re.DOTALL)
    headings = [re.findall(r">(image|truth|teacher|student alone[^<]*|kd[^<]*|at[^<]*)</text>", one) for one in wide]
    assert headings == [["image", "truth", "teacher", "kd", "at"], ["image", "truth", "student alone"]]
    places = re.findall(r'(?:href|src)="([^"]{,22})', section)
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", section)


def test_a_page_outlives_networks_and_data(bench: dict[str, Path], tmp_path: Path) -> None:
    (bench["kd"].parent / "teacher" / "network.json").unlink()
    page = write_page([bench["kd"]], tmp_path / "page.html").read_text()
    assert '<p class="note">Not drawn: ' in page
    assert "Predictions" not in write_page([half_done(bench["at"])], tmp_path / "page.html").read_text()


def half_done(run: Path) -> Path:
    (run / "result.json").unlink()
    return run
