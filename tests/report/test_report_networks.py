"""Pictures of what finished runs' networks compute: features in a plane, and logits beside the teacher's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.config import DataSettings, NetworkSettings
from limbeck.data import Batches, open_data
from limbeck.errors import Mistake
from limbeck.jobs.finished import Finished
from limbeck.report import correlating, embedding, pictures
from limbeck.report.answers import Answers, answers
from limbeck.report.look import class_colors
from limbeck.runs import Run
from limbeck.sources import describe, open_network

FEW = {"source": "digits", "classes": 3, "per_class": 4}


@pytest.fixture
def trained(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A finished run on three classes of digits, its network as random as its seed."""
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    data = open_data(DataSettings(**FEW))

    def train(name: str, *, student: str = "digits_small", seed: int = 0, **settings: object) -> Path:
        run = Run(make(name, student=student, data=FEW, seed=seed, epochs=2, **settings))
        torch.manual_seed(seed)
        network = open_network(NetworkSettings(name=student), data)
        run.save_weights(network)
        run.write_json("network.json", describe(network, data.classes, data.task))
        return run.folder

    return train


@pytest.fixture
def pair(trained: Callable[..., Path]) -> tuple[Path, Path]:
    """Two students of one teacher, of two seeds."""
    teacher = trained("teacher", student="digits_large", method="none", teacher=None, seed=7)
    return trained("a", teacher=str(teacher)), trained("b", teacher=str(teacher), seed=1)


def made(values: list[list[float]], targets: list[int], classes: str = "abc") -> Answers:
    return Answers(np.array(values, dtype=np.float32), np.array(targets), tuple(classes))


def clusters(count: int, each: int = 6) -> Answers:
    """Far apart, a class each."""
    chance, targets = np.random.default_rng(0), np.repeat(np.arange(count), each)
    values = 100 * np.eye(count)[targets] + chance.normal(size=(len(targets), count))
    return Answers(values.astype(np.float32), targets, tuple(f"c{i}" for i in range(count)))


# --- what a network computes


def test_answers_are_those_of_the_network_on_each_test_image(pair: tuple[Path, Path]) -> None:
    run = Finished.reopen(pair[0], device="cpu")
    run.network.train()
    found = answers(run.network, run.test(), run.data.classes, "logits")
    images = torch.cat([batch.images for batch in run.test().epoch(0)])
    with torch.no_grad():
        plain = run.network.module.eval()((images - run.network.mean) / run.network.std)
    np.testing.assert_allclose(found.values, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.targets, run.data.test.targets)
    assert answers(run.network, run.test(), run.data.classes, "pooled").values.shape == (
        len(images), run.network.module.fc.in_features)


def test_images_without_labels_are_refused(pair: tuple[Path, Path]) -> None:
    run = Finished.reopen(pair[0], device="cpu")
    blind = Batches(type(run.data.test)(run.data.test.store, None, run.data.test.index), 256, train=False)
    with pytest.raises(Mistake, match=r"shows images by their class; these have none. Give a run whose"):
        answers(run.network, blind, run.data.classes, "logits")


# --- correlations


def test_the_difference_is_that_of_mean_logits_by_class() -> None:
    student = made([[1, 2, 3], [3, 4, 9], [0, 0, 6], [5, 5, 5]], [0, 0, 1, 2])
    teacher = made([[0, 0, 0], [0, 6, 0], [3, 9, 9], [5, 5, 11]], [0, 0, 1, 2])
    expected = np.zeros((3, 3))
    for row in range(3):
        own = [i for i, target in enumerate(student.targets) if target == row]
        for column in range(3):
            if row != column:
                gap = sum(float(student.values[i, column] - teacher.values[i, column]) for i in own) / len(own)
                expected[row, column] = abs(gap) / 3
    np.testing.assert_allclose(correlating.difference(student, teacher), expected, rtol=0, atol=1e-12)
    assert expected[0, 2] == 2.0


def test_a_class_without_images_is_not_counted() -> None:
    student, teacher = made([[0, 3, 6], [3, 0, 0]], [0, 2]), made([[0, 0, 0], [0, 0, 0]], [0, 2])
    figure = correlating.correlations({"kd": (student, teacher)})
    FigureCanvasAgg(figure).draw()
    assert np.isnan(correlating.mean_logits(student)[1]).all()
    assert figure.axes[0].texts[0].get_text() == "max 2.000, mean 0.6667"  # of 0, 1, 2 and 1, 0, 0


def test_every_run_has_a_panel_on_one_scale() -> None:
    student, teacher = clusters(4), clusters(4)
    figure = correlating.correlations({"kd": (student, teacher), "slkd": (teacher, student)})
    FigureCanvasAgg(figure).draw()
    assert [axes.get_title("left") for axes in figure.axes[:2]] == ["kd", "slkd"]
    assert {image.get_clim() for axes in figure.axes[:2] for image in axes.get_images()} == {(0, 1)}


# --- features


def test_a_plane_keeps_clusters_together_and_is_always_the_same() -> None:
    found = clusters(3)
    plane = embedding.embedded(found.values)
    centres = np.stack([plane[found.targets == c].mean(0) for c in range(3)])
    nearest = np.linalg.norm(plane[:, None] - centres, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, found.targets)
    np.testing.assert_array_equal(embedding.embedded(found.values), plane)


@pytest.mark.parametrize(("count", "named"), [(3, 3), (21, 0)])
def test_every_image_is_a_dot_of_its_class_and_few_classes_are_named(count: int, named: int) -> None:
    found = clusters(count, each=2)
    figure = embedding.features({"kd": found})
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    dots = axes.collections[0]
    assert (len(dots.get_offsets()), len({tuple(color) for color in dots.get_facecolors()})) == (2 * count, count)
    *names, said = [text.get_text() for text in axes.texts]
    assert said == f"t-SNE of {count} pooled features, {2 * count} test images"
    assert names == list(found.classes[:named])


@pytest.mark.parametrize("count", [2, 8, 9, 20, 21, 100])
def test_classes_have_colours_of_their_own(count: int) -> None:
    assert len(set(class_colors(count))) == count


# --- from the command line


@pytest.mark.parametrize("what", ["features", "correlations", "scores"])
def test_pictures_of_runs_from_the_command_line(what: str, pair: tuple[Path, Path], tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    for module, name in ((embedding, "features"), (correlating, "correlations")):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda panels, draw=draw: titles.extend(panels) or draw(panels))
    words = ["plot", what, *map(str, pair), "--out", str(tmp_path / "drawn.png"), "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "drawn.png").stat().st_size > 1000
    assert titles == ([] if what == "scores" else ["kd, seed 0", "kd, seed 1"])


def test_without_a_teacher_there_are_no_correlations(trained: Callable[..., Path], tmp_path: Path) -> None:
    alone = trained("alone", method="none", teacher=None)
    with pytest.raises(Mistake, match=r"a run with a teacher is needed; .*alone has none. Give a run of `limbeck dist"):
        pictures.draw("correlations", [alone], tmp_path / "a.png", device="cpu")


def test_an_unfinished_run_has_no_network(make: Callable[..., Path], tmp_path: Path) -> None:
    half = make("half", done=1)
    with pytest.raises(Mistake, match=r"half is not finished: it holds no network yet. `limbeck resume .*half` goes"):
        pictures.draw("features", [half], tmp_path / "a.png", device="cpu")
