"""What `limbeck evaluate` says of a finished run: scores of its network, of a whole group, or what each part costs."""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from pathlib import Path

from limbeck import jobs
from limbeck.errors import Mistake
from limbeck.jobs.rebuilt import Rebuilt
from limbeck.report.costing import as_text
from limbeck.training import engine


def network(folder: Path, *, source: str | None = None, device: str | None = None, json: bool = False) -> str:
    """Scores of the network that ships, a line each.

    Args:
        folder: Of a finished run.
        source: Other data of the same classes than the run's.
        device: What it runs on; None takes the best.
        json: As JSON.
    """
    scores = jobs.evaluate(folder, source=source, device=device)
    return json_.dumps(scores) if json else "\n".join(f"{name} {value:.4g}" for name, value in scores.items())


def members(folder: Path, *, source: str | None = None, device: str | None = None, json: bool = False) -> str:
    """Scores of everyone who answers and of the group, a line each; arguments as for `network`."""
    found = Rebuilt.of(folder, device=device).scores(source)
    return json_.dumps(found) if json else _lines(found)


def _lines(found: Mapping[str, Mapping[str, float]]) -> str:
    width = max(map(len, found))
    return "\n".join(f"{name:{width}}  " + "  ".join(f"{key} {value:.4g}" for key, value in scores.items())
                     for name, scores in found.items())


def cost(folder: Path, *, source: str | None = None, device: str | None = None, json: bool = False) -> str:
    """What every part costs in a step on the run's own data, a table a stage; arguments as for `network`.

    Raises:
        Mistake: If other data is given.
    """
    if source is not None:
        raise Mistake(f"a cost is that of the run's own steps, on its own data; got --data {source}. Leave it out.")
    run = Rebuilt.of(folder, device=device, trained=False)
    stages, settings = run.costs(), run.job.training
    place, precise = run.parts.accelerator.device, engine.autocast(settings.precision, run.parts.accelerator.device)[1]
    how = {"device": str(place), "precision": "float32" if precise else "bf16", "batch_size": settings.batch_size}
    if json:
        told = {name: [part.as_json() for part in parts] for name, parts in stages.items()}
        return json_.dumps({**how, "stages": told}, indent=2)
    head = (f"a batch of {how['batch_size']} images in {how['precision']} on {place}; MMACs: million multiply-adds of "
            f"a forward pass on one image, FLOPs are twice as many")
    return "\n\n".join([head, *(f"{name} (stage)\n{as_text(parts)}" if len(stages) > 1 else as_text(parts)
                                for name, parts in stages.items())])
