"""Method cards: what they are read from, and that those in the documentation are what the code says now."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from limbeck.guide import cards
from limbeck.guide.cards import EXCEPTIONS, pages, write
from limbeck.guide.cards import cards as all_cards
from limbeck.guide.docstrings import Docstring, Function, code_lines, has_parts
from limbeck.methods import METHODS
from limbeck.wiring import function

DOCS = Path(__file__).parents[2] / "docs" / "methods"

TEXT = """ce * CE + weight * d(s, t).

    A sentence with a formula,
        d = |s - t|  for all,
    and its end.

    Args:
        student: Learns.
        weight: Of d; 3 in the
            paper: or 4.

    Raises:
        Mistake: If not.

    Source: Who et al., A Title: With a Colon, CVPR 2022, arXiv:2203.08679, section 3; as in a benchmark. The code
    differs.

    It differs twice.
"""


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a method's file."""
    def write(text: str) -> Path:
        (tmp_path / "method.py").write_text(dedent(text))
        return tmp_path / "method.py"
    return write


# --- docstrings


def test_a_docstring_in_its_parts() -> None:
    docstring = Docstring.read(dedent(f"    {TEXT}"))
    assert docstring.paragraphs == ("ce * CE + weight * d(s, t).",
                                    "A sentence with a formula,\n    d = |s - t|  for all,\nand its end.")
    assert docstring.arguments() == {"student": "Learns.", "weight": "Of d; 3 in the paper: or 4."}
    assert set(docstring.sections) == {"Args", "Raises", "Source"}


@pytest.mark.parametrize(("source", "reference", "beyond"), [
    ("Who et al., T, CVPR 2022, arXiv:2203.08679.", "Who et al., T, CVPR 2022, arXiv:2203.08679", ""),
    ("Who et al., T, CVPR 2022, arXiv:2203.08679; so it is. And so.", "Who et al., T, CVPR 2022, arXiv:2203.08679",
     "so it is. And so."),
    ("Who et al., Why? Because, arXiv:2203.08679, section 3. The code\n    differs.",
     "Who et al., Why? Because, arXiv:2203.08679, section 3", "The code differs."),
    ("Who, T, ICML 2018. It is.", "Who, T, ICML 2018", "It is."),
    ("", "", ""),
])
def test_a_reference_ends_after_its_number(source: str, reference: str, beyond: str) -> None:
    assert Docstring((), {"Source": source}).source() == (reference, beyond)


def test_options_as_they_are_written(file: Callable[[str], Path]) -> None:
    found = Function.read(file('''
        """M: an idea."""
        from typing import Literal

        def method(student, teacher, setting, *, peers: Sequence[Network] = (), form: Literal["a", "b"] | None = None,
                   weight: float = 3.0):
            """Formula.

            Args:
                weight: Of d.
            """
    '''), "method")
    assert found.module.paragraphs == ("M: an idea.",)
    assert [(o.name, o.default, o.about) for o in found.options] == [
        ("peers", "()", ""), ("form", "None", ""), ("weight", "3.0", "Of d.")]
    assert cards._kind(found.options[1]) == "`a`, `b`, or None"


# --- lines of code


@pytest.mark.parametrize(("text", "lines", "parts"), [
    ('"""Doc."""\n\n# a comment\nx = 1  # another\n', 1, False),
    ('import a\nfrom b import (\n    c,\n    d)\n', 4, False),
    ('def f():\n    """One.\n\n    Two.\n    """\n    return """a\n    b"""\n', 3, False),
    ('class A:\n    x: int\n    """Of it."""\n', 2, True),
    ('def f():\n    pass\n\n\ndef g():\n    pass\n', 4, True),
    ('def f():\n    return [Stage(g())]\n', 2, True),
    ('def f():\n    return nn.Linear(1, 2)\n', 2, True),
])
def test_lines_of_code(text: str, lines: int, parts: bool, file: Callable[[str], Path]) -> None:
    assert code_lines(file(text)) == lines
    assert has_parts(file(text)) == parts


def test_a_method_costs_15_lines_or_60_with_parts_of_its_own() -> None:
    over = {card.name: f"{card.lines} of {card.most}" for card in all_cards(DOCS) if card.lines > card.most}
    unexplained = {name: lines for name, lines in over.items() if name not in EXCEPTIONS}
    assert not unexplained, "make them shorter, or say in limbeck.guide.cards.EXCEPTIONS why they are longer"
    assert set(EXCEPTIONS) <= set(METHODS)


# --- cards


def test_a_card_has_all_its_parts(tmp_path: Path) -> None:
    kd = {"extra_parameters": 1234, "memory": 2**20, "stages": 2, "time": 1.5}
    (tmp_path / "costs.json").write_text(json.dumps({"setting": "here", "methods": {"kd": kd}}))
    text = pages(tmp_path)["kd.md"]
    for part in ("# kd\n", "Soft targets (Hinton et al., 2015).", "KD: one frozen teacher", "## Loss\n\n```\nce * CE",
                 "- `teacher`: Frozen.", "| `temperature` | `float` | `4.0` | T; 4 on CIFAR-100, 1 on ImageNet. |",
                 "1,234 parameters train beside the student's, and 1.0 MiB are remembered; none of it ships.",
                 "Training takes 1.50 times as long as KD, over all its 2 stages (here).",
                 "## Source\n\nHinton, Vinyals, Dean", "arXiv:1503.02531.", "## Readings, and differences",
                 "[table1-kd](../../recipes/slkd/table1-kd.yaml)", "resnet32x4-resnet8x4 73.33"):
        assert part in text.replace("\nlong", " long"), part


def test_a_method_that_was_measured_elsewhere_says_where(tmp_path: Path) -> None:
    cwd = {"extra_parameters": 0, "memory": 0, "stages": 1, "time": 1.5, "setting": "there"}
    (tmp_path / "costs.json").write_text(json.dumps({"setting": "here", "methods": {"cwd": cwd}}))
    assert "1.50 times as long as KD (there)." in pages(tmp_path)["cwd.md"]


def test_what_was_not_measured_says_how(tmp_path: Path) -> None:
    assert "`python benchmarks/costs.py --only kd`" in pages(tmp_path)["kd.md"]
    assert "It searches first" in pages(tmp_path)["distpro.md"]


def test_a_summary_in_words_is_no_formula() -> None:
    assert cards._formula(Docstring(("Training of one network.",), {})) == ["Training of one network."]
    assert cards._formula(Docstring(("CE + x.",), {})) == ["```\nCE + x.\n```"]


def test_tables_hold_bars() -> None:
    assert cards._table(["a"], [["KL(a || b)"]]) == "| a |\n| --- |\n| KL(a \\|\\| b) |"


def test_every_option_of_every_method_is_explained() -> None:
    """So that no card has an empty cell; options are those that `--set method.` takes."""
    silent = {f"{card.name}.{option.name}" for card in all_cards(DOCS) for option in card.function.options
              if not option.about}
    assert not silent


def test_cards_read_the_function_that_runs() -> None:
    import inspect

    for card in all_cards(DOCS):
        written = [option.name for option in card.function.options]
        assert written == [p.name for p in inspect.signature(function(card.name)).parameters.values()
                           if p.kind is p.KEYWORD_ONLY], card.name


def test_writing_again_changes_nothing_and_takes_away_what_is_gone(tmp_path: Path) -> None:
    count = len(METHODS) + 1
    assert write(tmp_path) == f"{count} pages in {tmp_path}: {count} written, 0 taken away"
    (tmp_path / "gone.md").touch()
    (tmp_path / "kd.md").write_text("old")
    assert write(tmp_path) == f"{count} pages in {tmp_path}: 1 written, 1 taken away"


def test_the_documentation_has_the_cards_of_today() -> None:
    old = [name for name, text in pages(DOCS).items() if not cards._same(DOCS / name, text)]
    gone = [path.name for path in DOCS.glob("*.md") if path.stem not in {*METHODS, "README"}]
    assert not old + gone, "run: limbeck cards docs/methods"


def test_the_index_links_every_card_and_says_why_files_are_long() -> None:
    text = pages(DOCS)["README.md"]
    assert set(re.findall(r"\]\((\w+)\.md\)", text)) == set(METHODS)
    assert f"- `crd`: {code_lines(cards._FOLDER / 'crd.py')}. {EXCEPTIONS['crd']}" in text


def test_from_the_command_line(limbeck: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert limbeck("cards", tmp_path) == 0
    assert "written, 0 taken away" in capsys.readouterr().out
    assert (tmp_path / "README.md").is_file()
