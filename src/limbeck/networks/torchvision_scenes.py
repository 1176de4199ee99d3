"""torchvision's networks for segmentation: their auxiliary heads declared, so that they are supervised like others.

They answer with a dict, whose first entry is the logits at the image's size, and run their auxiliary head beside.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def names() -> list[str]:
    """What there is."""
    from torchvision import models

    found: list[str] = models.list_models(models.segmentation)
    return found


def untrained(name: str, num_classes: int) -> dict[str, Any]:
    """What torchvision's `get_model` is given to build one without any weights."""
    aux = {} if name.startswith("lraspp") else {"aux_loss": True}  # which has no such head
    return {"weights": None, "weights_backbone": None, "num_classes": num_classes, **aux}


def scene_network(name: str, num_classes: int | None = None) -> nn.Module:
    """One of them, untrained, its backbone too; or with torchvision's own weights where no number of classes is given.

    Args:
        name: One of `names`.
        num_classes: Logits.
    """
    from torchvision import models

    settings = {"weights": "DEFAULT"} if num_classes is None else untrained(name, num_classes)
    network: nn.Module = models.get_model(name, **settings)
    if getattr(network, "aux_classifier", None) is not None:
        pyramid = {"psp": "classifier.0"} if name.startswith("deeplab") else {}
        network.taps = {**pyramid, "aux": "aux_classifier"}  # type: ignore[assignment]
        network.auxiliary = {"aux": 0.5}  # type: ignore[assignment]
    return network
