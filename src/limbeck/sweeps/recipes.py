"""Recipes: a YAML file for each row of a paper's table, with a pair of networks for each of its columns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.config import Job, RecipeSettings, read_job, read_yaml


@dataclass(frozen=True)
class Recipe:
    """A file of settings that reproduces a row of a table.

    Attributes:
        file: The YAML file.
        jobs: Its settings, by pair; one without a name where the file has no pairs.
    """

    file: Path
    jobs: Mapping[str, Job]


def find_recipes(folder: Path) -> list[Recipe]:
    """All recipes in a folder and below, by path.

    Raises:
        Mistake: If one of them does not fit limbeck's settings.
    """
    return [Recipe(file, {pair: read_job(file, {}, pair or None) for pair in pairs_of(file)})
            for file in sorted(folder.rglob("*.yaml"))]


def listed() -> str:
    """What `limbeck list recipes` says: each file, its pairs, what the paper reports, what limbeck lacks to run it."""
    folder = recipes_folder()
    if folder is None:
        return ("The recipes are YAML files in the folder `recipes` of limbeck's repository, which an installed "
                "package leaves out. Run this in a checkout, or give one of its files as --config.")
    return "\n".join(line for recipe in find_recipes(folder) for line in _lines(recipe))


def recipes_folder() -> Path | None:
    """The folder `recipes` of the checkout that limbeck runs from, or else of the present folder, if there is one."""
    places = (Path(__file__).parents[3] / "recipes", Path("recipes"))
    return next((place for place in places if any(place.glob("*/*.yaml"))), None)


def pairs_of(file: Path) -> list[str]:
    """The pairs that a recipe has, by name; one without a name where it has none."""
    return list(read_yaml(file).get("pairs") or [""])


def _lines(recipe: Recipe) -> list[str]:
    settings = {pair: job.recipe for pair, job in recipe.jobs.items()}
    width = max(map(len, settings))
    shared = {one.needs for one in settings.values()}
    needs = shared.pop() if len(shared) == 1 else None
    lines = [f"{os.path.relpath(recipe.file)}  {next(iter(settings.values())).about}"]
    if needs:
        lines.append(f"    needs {needs}")
    for pair, one in settings.items():
        own = f"needs {one.needs}" if one.needs and not needs else ""
        lines.append(f"    {pair:<{width}}  {_number(one):<18}  {own}".rstrip())
    return lines


def _number(recipe: RecipeSettings) -> str:
    deviation = "" if recipe.deviation is None else f" ± {recipe.deviation:.2g}"
    return "" if recipe.paper is None else f"{recipe.metric} {recipe.paper:g}{deviation}"
