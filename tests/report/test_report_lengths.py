"""Scores against the length of training: the picture, and how much sooner a method arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck import report
from limbeck.errors import Mistake
from limbeck.report.fast import lengths
from limbeck.report.lengths import courses, sooner

SCORES = {"none": {5: 60.0, 10: 66.0, 20: 70.0}, "reviewkd": {5: 62.0, 10: 68.0, 20: 72.5},
          "distpro": {5: 65.0, 10: 70.0, 20: 73.0}}


@pytest.fixture
def runs(make) -> list[Path]:
    found = [make("search", method="distpro", verb="search", stages={"search": 2})]
    for method, scores in SCORES.items():
        for epochs, final in scores.items():
            for seed in (0, 1):
                alone = {"teacher": None, "verb": "train"} if method == "none" else {}
                process = {"process": {"file": str(found[0])}} if method == "distpro" else {}
                found.append(make(f"{method}-{epochs}-{seed}", method=method, epochs=epochs, seed=seed,
                                  final=final + seed, **alone, **process))
    return found


def test_rows_that_differ_in_length_alone_are_one_course(runs):
    found = {course.what: course for course in courses(report.rows(runs))}
    assert set(found) == set(SCORES)
    assert [(epochs, score.mean) for epochs, score in found["distpro"].scores] == [(5, 65.5), (10, 70.5), (20, 73.5)]
    assert found["none"].alone
    assert found["distpro"].needs(73.0) == pytest.approx(10 + 10 * (73 - 70.5) / 3)
    assert found["distpro"].needs(65.0) == 5
    assert found["distpro"].needs(73.6) is None


def test_of_errors_less_is_better(make):
    scores = {epochs: make(str(epochs), epochs=epochs, recipe={"metric": "cross_entropy"}, final=final)
              for epochs, final in ((5, 80.0), (10, 90.0))}
    (course,) = courses(report.rows(scores.values()))
    low, high = (score.mean for _, score in reversed(course.scores))
    assert low < high
    assert course.needs((low + high) / 2) == pytest.approx(7.5)


def test_how_much_sooner_a_method_arrives(runs):
    headers, lines = sooner(report.rows(runs), "distpro")
    assert headers[3:] == ["epochs", "test top-1", "epochs of distpro", "speed-up"]
    assert [line[0] for line in lines] == ["none"] * 3 + ["reviewkd"] * 3
    by_length = {(line[0], line[3]): line[4:] for line in lines}
    assert by_length["reviewkd", "20"] == ["73.00 ± 0.71", "18.3", "1.09 x"]
    assert by_length["reviewkd", "10"] == ["68.50 ± 0.71", "8", "1.25 x"]
    assert by_length["none", "5"] == ["60.50 ± 0.71", "at most 5", "at least 1.00 x"]
    headers, lines = sooner(report.rows(runs), "reviewkd")
    assert next(line for line in lines if line[0] == "distpro" and line[3] == "20")[5:] == ["not within 20", ""]
    for write in report.OF_CELLS.values():
        assert "distpro" in write(headers, lines)


def test_one_length_or_another_name_is_a_mistake(runs, make):
    with pytest.raises(Mistake, match=r"'distpr'; closest: \['distpro'"):
        sooner(report.rows(runs), "distpr")
    with pytest.raises(Mistake, match="trained for two lengths at least; got"):
        courses(report.rows([make("alone", method="kd")]))


@pytest.mark.parametrize("narrow", [False, True])
def test_the_picture_has_a_line_a_method_and_ticks_at_the_lengths(runs, narrow):
    figure = lengths(report.rows(runs), narrow=narrow)
    (axes,) = figure.axes
    drawn = {tuple(bar[0].get_ydata()) for bar in axes.containers}
    assert drawn == {tuple(score + 0.5 for score in scores.values()) for scores in SCORES.values()}
    assert axes.get_xticks().tolist() == [5, 10, 20]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the student alone", "reviewkd", "distpro"]


def test_from_the_command_line(runs, tmp_path, capsys):
    from limbeck.report import pictures

    assert pictures.draw("lengths", [runs[0].parent], tmp_path / "out" / "lengths.png").is_file()
