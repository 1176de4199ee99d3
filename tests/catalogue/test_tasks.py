"""Every method on tasks that answer with maps, and those made for these on classes: it works, or says why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from catalogue import ROWS, Row

from limbeck.contract.steps import images_for, step
from limbeck.contract.trial import built
from limbeck.contract.values import members_reached
from limbeck.errors import Mistake
from limbeck.methods import METHODS

FIRST = {name: next(row for row in sorted(ROWS, key=lambda row: not row.supervised) if row.method == name)
         for name in METHODS}
"""A row of each method; of its stages one that is supervised, where there is such."""

VECTOR, FUSED = "one answer an image, as it compares a batch by one vector", "one answer an image, as the classifier of"
REFUSED = {
    "rkd": VECTOR, "pkt": VECTOR, "cc": VECTOR,
    "crd": "one answer an image, as it tells each image from those of other classes",
    "okddip": "one answer an image, as its attention is between one vector an image",
    "byot": "one answer an image, as its exits give",
    "deit": "one answer an image, as the class and the distillation token give",
    "end2": "one answer an image, as its ensemble has one Dirichlet an image",
    "ffl": FUSED, "ffsd": FUSED,
    "mlkd": "looks at further views of each image",
    "kdcl": "looks at further views of each image",
}
"""Methods that answer no maps, and what they say."""
BELIEFS = {"dkd", "lskd", "dist"}
SCENES = {"structured": "compares beliefs pixel by pixel", "ifvd": "knows the mean feature of each class",
          "cwd": "a channel is a class"}


def on(name: str, task: Literal["classification", "segmentation", "depth"]) -> Row:
    return replace(FIRST[name], task=task, networks=("cnn", "cnn"))


@pytest.mark.parametrize("task", ["segmentation", "depth"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_on_maps_or_says_why_not(name: str, task: Literal["segmentation", "depth"]) -> None:
    reason = REFUSED.get(name)
    if task == "depth" and name in BELIEFS | set(SCENES):
        reason = "compares beliefs over classes; depth answers metres" if name in BELIEFS else SCENES[name]
    if reason:
        with pytest.raises(Mistake, match=f"({name}|a leader) .*{reason}"):
            built(on(name, task))
        return
    method = built(on(name, task))
    total, losses, _ = step(method)
    assert all(loss.isfinite() for loss in losses.values())
    assert method.deploy in members_reached(method, total)


@pytest.mark.parametrize("name", SCENES)
def test_methods_of_segmentation_refuse_classes(name: str) -> None:
    with pytest.raises(Mistake, match=f"{name}.* needs a class for every pixel, as .*{SCENES[name]}; .*classification"):
        built(on(name, "classification"))


@pytest.mark.parametrize("options", [{"knowledge": "dkpp"}, {"knowledge": "cwtm"}])
def test_forms_of_ban_say_why_too(options: dict[str, str]) -> None:
    row = replace(on("ban", "depth"), options={"generations": 1, **options})
    with pytest.raises(Mistake, match=f"ban with knowledge={options['knowledge']}"):
        built(row)


@pytest.mark.parametrize("row", [row for row in ROWS if row.task != "classification"], ids=lambda row: row.label)
def test_what_does_not_count_adds_nothing(row: Row) -> None:
    """Without a pixel that counts, losses of pixels are 0; those of features remain."""
    method = built(row)
    images = images_for(method)
    assert images.targets is not None
    nothing = torch.zeros_like(images.targets) + (255 if row.task == "segmentation" else 0)
    _, losses, _ = step(method, replace(images, targets=nothing))
    of_pixels = {"ce", "kl", "l1", "pixel", "variation", "logits", "ifvd/kl", "ifvd/variation"}
    for name, loss in losses.items():
        assert loss.isfinite()
        assert (loss == 0) == (name in of_pixels), name
