"""A card for each method, and an index: made of its file, the recipes, and what `benchmarks/costs.py` measured.

    limbeck cards docs/methods
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.config import merged, read_yaml, sections
from limbeck.files import write_whole
from limbeck.guide.docstrings import Docstring, Function, Option, code_lines, has_parts
from limbeck.methods import METHODS, SEARCHED
from limbeck.sweeps.recipes import recipes_folder

MOST = {False: 15, True: 60}
"""Code lines that a method's file may have: a loss, and one with parts of its own."""

EXCEPTIONS: dict[str, str] = {
    "kd": "Written out in full, as the documentation's example of a `Method`; by `offline` it would have 12.",
    "at": "Two readings of the distance; half of its lines are imports.",
    "structured": "Two terms, of answers and of features, on a task that is asked for.",
    "dkd": "Two terms, to be weighed and searched apart, and a variant on standardised logits.",
    "reviewkd": "The fusion of a level, the member that goes through all levels, and their taps.",
    "crd": "Two memories that all ranks share, and the drawing of negatives.",
    "semckd": "Attention over all pairs of stages, and a projection for each.",
    "afd": "Transfers and judges, and terms that judge and that fool.",
    "kdcl": "Five targets, one of which learns its weights on held-out images.",
}
"""Method -> why its file has more."""

_FOLDER = Path(__file__).parents[1] / "methods"
_NETWORKS = ("Network", "Sequence[Network]", "Sequence[Network] | None", "Network | None")
_INDEX, _COSTS = "README.md", "costs.json"


@dataclass(frozen=True)
class Reported:
    """A row of a paper's table, as a recipe has it.

    Attributes:
        recipe: The recipe's path in the folder of recipes.
        about: What it is.
        numbers: Pair -> the paper's number, its deviation and measure.
    """

    recipe: str
    about: str
    numbers: Mapping[str, str]


@dataclass(frozen=True)
class Card:
    """What is known of a method.

    Attributes:
        name: The method's.
        costs: What was measured of it; empty where nothing was.
        setting: On what methods were measured; a method's own `setting` among its costs goes before.
        reported: What papers report.
    """

    name: str
    costs: Mapping[str, Any]
    setting: str
    reported: Sequence[Reported]

    @property
    def about(self) -> str:
        """What it is, in a line."""
        return METHODS[self.name].partition(": ")[2]

    @property
    def file(self) -> Path:
        return _FOLDER / f"{METHODS[self.name].partition(':')[0]}.py"

    @cached_property
    def function(self) -> Function:
        """Its function, as it stands in its file."""
        return Function.read(self.file, self.name)

    @property
    def lines(self) -> int:
        """Lines of code of its file."""
        return code_lines(self.file)

    @property
    def most(self) -> int:
        """Lines that its file may have."""
        return MOST[has_parts(self.file)]

    def text(self) -> str:
        """The card, as Markdown."""
        reference, beyond = self.function.own.source()
        parts = [f"# {self.name}", f"{_capital(self.about)}.", *map(_filled, self.function.module.paragraphs),
                 "## Loss", *_formula(self.function.own), "## Networks and options", *self._options(),
                 "## Cost", _filled(self._cost()), *(["## Source", _filled(reference + ".")] if reference else []),
                 *(["## Readings, and differences from released code", _filled(_capital(beyond))] if beyond else []),
                 *self._reported(), _filled(f"Made by `limbeck cards` from `src/limbeck/methods/{self.file.name}`, "
                                            f"{self.lines} lines of code.")]
        return "\n\n".join(parts) + "\n"

    def _options(self) -> list[str]:
        said, options = self.function.own.arguments(), self.function.options
        roles = {role: text for role, text in said.items() if role in ("student", "teacher")}
        roles |= {f"networks.{option.name}": option.about for option in options if option.kind in _NETWORKS}
        rows = [[f"`{option.name}`", _kind(option), f"`{option.default}`", option.about] for option in options
                if option.kind not in _NETWORKS]
        table = _table(["option", "values", "default", "what it is"], rows) if rows else "It has no options."
        return ["\n".join(f"- `{role}`: {about}" for role, about in roles.items()), table]

    def _cost(self) -> str:
        """Extra parameters and time, in words."""
        said = "It searches first, for a sixth of the epochs, unless it is given a process. " * (self.name in SEARCHED)
        if not self.costs:
            return f"{said}Not measured yet: `python benchmarks/costs.py --only {self.name}`."
        more, memory = self.costs["extra_parameters"], self.costs["memory"]
        said += f"{more:,} parameters train" if more else "No parameters train"
        said += " beside the student's" + (f", and {memory / 2**20:.1f} MiB are remembered" if memory >= 2**18 else "")
        stages = f", over all its {self.costs['stages']} stages" if self.costs["stages"] > 1 else ""
        return (f"{said}; none of it ships. Training takes {self.costs['time']:.2f} times as long as KD{stages} "
                f"({self.costs.get('setting', self.setting)}).")

    def _reported(self) -> list[str]:
        rows = [[f"[{Path(row.recipe).stem}](../../recipes/{row.recipe})", row.about,
                 "; ".join(f"{pair} {number}".strip() for pair, number in row.numbers.items())]
                for row in self.reported]
        return ["## What papers report", _table(["recipe", "what", "numbers"], rows)] if rows else []


def cards(folder: Path) -> list[Card]:
    """A card for each method, with the costs that are kept in a folder."""
    file = folder / _COSTS
    costs: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"setting": "", "methods": {}}
    found = _all_reported()
    return [Card(name, costs["methods"].get(name, {}), costs["setting"], found.get(name, ())) for name in METHODS]


def pages(folder: Path) -> dict[str, str]:
    """File name -> text of the index and of every card."""
    made = cards(folder)
    return {_INDEX: _index(made), **{f"{card.name}.md": card.text() for card in made}}


def write(folder: Path) -> str:
    """Write all pages, and take away those of methods that are gone; says what was done."""
    texts = pages(folder)
    gone = [path for path in folder.glob("*.md") if path.name not in texts]
    for path in gone:
        path.unlink()
    changed = [name for name, text in texts.items() if not _same(folder / name, text)]
    for name in changed:
        write_whole(folder / name, texts[name])
    return f"{len(texts)} pages in {folder}: {len(changed)} written, {len(gone)} taken away"


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _index(made: Sequence[Card]) -> str:
    rows = [[f"[{card.name}]({card.name}.md)", card.about, f"{card.lines}", *_costs(card),
             f"{sum(len(row.numbers) for row in card.reported) or ''}"] for card in made]
    shared = sorted({path.name for path in _FOLDER.glob("[a-z]*.py")} - {card.file.name for card in made})
    over = [f"- `{card.name}`: {card.lines}. {EXCEPTIONS[card.name]}" for card in made
            if card.lines > card.most and card.name in EXCEPTIONS]
    parts = [
        "# Methods",
        _filled(f"{len(made)} methods. `limbeck distill --method NAME` trains one, `--method kd+at` several at once, "
                f"and `limbeck check NAME` holds it to what every method must do. This page and the cards are made by "
                f"`limbeck cards`."),
        _table(["method", "what it is", "code lines", "extra parameters", "time / KD", "numbers"], rows),
        _filled(f"Code lines are those of the method's file without docstrings, comments and blank lines; imports "
                f"count. A method that is a loss has at most {MOST[False]}, one with parts of its own {MOST[True]}"
                + (", but for" if over else ".")),
        *(["\n".join(over)] if over else []),
        _filled("Beside the methods' own files there is what several share: "
                + ", ".join(f"`{name}` ({code_lines(_FOLDER / name)})" for name in shared) + "."),
        _filled(f"Extra parameters train beside the student's and do not ship; times are of whole trainings "
                f"({made[0].setting or 'not measured yet'}; those of `deit`, and of methods for segmentation "
                f"alone, as their cards say). Numbers: how many a paper reports in `recipes/`."),
    ]
    return "\n\n".join(parts) + "\n"


def _costs(card: Card) -> list[str]:
    return [f"{card.costs['extra_parameters']:,}", f"{card.costs['time']:.2f}"] if card.costs else ["", ""]


# --- what papers report


def _all_reported() -> dict[str, list[Reported]]:
    """Method -> what the recipes' papers report of it."""
    folder, found = recipes_folder(), dict[str, list[Reported]]()
    for file in sorted(folder.rglob("*.yaml")) if folder else ():
        tree, numbers = sections(read_yaml(file)), dict[str, dict[str, str]]()
        for pair, settings in (tree.pop("pairs", None) or {"": {}}).items():
            chosen = merged(tree, sections(settings))
            recipe, method = chosen.get("recipe", {}), chosen.get("method", {}).get("name", "none")
            if recipe.get("paper") is not None:
                numbers.setdefault(method, {})[pair] = _score(recipe)
        for method, own in numbers.items():
            about = tree.get("recipe", {}).get("about", "")
            found.setdefault(method, []).append(Reported(file.relative_to(folder or "").as_posix(), about, own))
    return found


def _score(recipe: Mapping[str, Any]) -> str:
    deviation = f" ± {recipe['deviation']:.2g}" if recipe.get("deviation") else ""
    metric = recipe.get("metric", "top1")
    return f"{recipe['paper']:g}{deviation}" + (f" {metric}" if metric != "top1" else "")


# --- Markdown


def _formula(docstring: Docstring) -> list[str]:
    """The summary, if it looks like one, and what is indented as formulas; the rest as text."""
    first, *others = docstring.paragraphs
    summary = _code(first) if re.search(r" [*+=] |->|\|\||\^|\bsum\b", first) else _filled(first)
    return [summary, *(part for text in others for part in _prose(text))]


def _prose(text: str) -> list[str]:
    """A paragraph, its indented lines apart."""
    parts: list[str] = []
    for indented, lines in _runs(text.splitlines()):
        parts.append(_code(textwrap.dedent("\n".join(lines))) if indented else _filled(" ".join(lines)))
    return parts


def _runs(lines: Sequence[str]) -> list[tuple[bool, list[str]]]:
    runs: list[tuple[bool, list[str]]] = []
    for line in lines:
        indented = line.startswith("    ")
        if not runs or runs[-1][0] != indented:
            runs.append((indented, []))
        runs[-1][1].append(line)
    return runs


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in line) + " |"
                     for line in lines)


def _kind(option: Option) -> str:
    """An annotation as a person reads it: the words of a Literal, or the type."""
    words = re.fullmatch(r"Literal\[(.*?)\]( \| None)?", option.kind)
    if not words:
        return f"`{option.kind}`"
    listed = ", ".join(f"`{word.strip()}`" for word in words[1].replace("'", "").split(","))
    return listed + (", or None" if words[2] else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
