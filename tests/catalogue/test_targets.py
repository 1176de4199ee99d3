"""Every method with mixed images and class probabilities, and with no labels at all: it works, or says why not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from catalogue import ROWS, Row

from limbeck.contract.steps import CLOCK, images_for, step
from limbeck.contract.trial import stages
from limbeck.data import Mixing
from limbeck.errors import Mistake
from limbeck.training.labels import check_mixed, without_labels

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
of_classes = pytest.mark.parametrize("row", [row for row in ROWS if row.task == "classification"],
                                     ids=lambda row: row.label)

UNMIXED = {"dkd": r"one class for each image \(target, nontarget\)", "kdcl": r"one class for each image \(target\)",
           "crd": r"remembers each image, and a mixture of two is neither \(contrast\)",
           "kd+crd": r"\(crd/contrast\)"}
"""Methods that refuse mixed images, and what they say; of KDCL's targets one is made without labels."""

LABELS_ALONE = {"none", "byot", "ban"}
TOGETHER = {"dml", "afd", "one", "okddip", "ffl", "ffsd", "kdcl"}
STAGES = {"ab": "learns from labels in its stage 'train'", "fsp": "learns from labels in its stage 'train'"}
"""Those that train an initialised student on labels alone, unless they are asked for both at once."""
READERS = {"dkd": r"reads labels in target, nontarget", "ifvd": "reads labels in variation",
           "ifvd+distpro": "reads labels in ifvd/variation", "l2tww": "learns beside the loop by the supervised loss"}


@of_classes
def test_mixed_images_are_learned_from_or_refused(row: Row) -> None:
    built = stages(row)
    if row.method in UNMIXED and row.options.get("target") != "general":
        with pytest.raises(Mistake, match=UNMIXED[row.method]):
            check_mixed(row.method, built)
        return
    check_mixed(row.method, built)
    method = built[row.stage].method.train()
    images = Mixing(4, mixup=0.8, cutmix=1.0)(images_for(method), 0, 0)
    assert images.targets is not None
    assert images.targets.shape == (8, 4)
    total, losses, _ = step(method, images)
    total.backward()
    assert all(loss.isfinite() for loss in losses.values())


@rows
def test_unlabelled_images_are_learned_from_or_refused(row: Row) -> None:
    built = stages(row)
    reason = READERS.get(row.method)
    if row.method in LABELS_ALONE | TOGETHER:
        reason = "learns from labels" if row.method == "none" else "as no finished network teaches"
        if row.method == "kdcl" and row.options.get("target") != "general":
            reason = "reads labels in target"
    if row.method in STAGES and row.options.get("form") != "joint":
        reason = STAGES[row.method]
    if reason:
        with pytest.raises(Mistake, match=f"method {row.method.replace('+', '.')} .*{reason}"):
            without_labels(row.method, built)
        return
    left, note = without_labels(row.method, built)
    before, after = built[row.stage].method, left[row.stage].method.train()
    dropped = [name for name in before.terms if name not in after.terms]
    assert dropped == [name for name in before.terms if re.search(r"(^|/)ce(-|$)", name)]
    assert ("supervised terms" in note) == any("ce" in stage.method.terms for stage in built)
    images = replace(images_for(after), targets=None)
    total, losses, _ = step(after, images)
    total.backward()
    assert set(losses) <= set(after.terms)
    kept = dict(zip(before.process.names, before.process.weights(CLOCK), strict=True))
    for name, weight in zip(after.process.names, after.process.weights(CLOCK), strict=True):
        assert kept[name] == weight
