"""torchvision's networks for segmentation: their auxiliary heads declared, so that they are supervised like others.

They answer with a dict, whose first entry is the logits at the image's size, and run their auxiliary head beside.
"""

from __future__ import annotations

from torch import nn


def names() -> list[str]:
    """What there is."""
    from torchvision import models

    found: list[str] = models.list_models(models.segmentation)
    return found


def scene_network(name: str, num_classes: int | None = None) -> nn.Module:
    """One of them, untrained, its backbone too; or with torchvision's own weights where no number of classes is given.

    Args:
        name: One of `names`.
        num_classes: Logits.
    """
    from torchvision import models

    aux = {} if name.startswith("lraspp") else {"aux_loss": True}  # which has no such head
    untrained = {"weights": None, "weights_backbone": None, "num_classes": num_classes, **aux}
    network: nn.Module = models.get_model(name, **({"weights": "DEFAULT"} if num_classes is None else untrained))
    if getattr(network, "aux_classifier", None) is not None:
        pyramid = {"psp": "classifier.0"} if name.startswith("deeplab") else {}
        network.taps = {**pyramid, "aux": "aux_classifier"}  # type: ignore[assignment]
        network.auxiliary = {"aux": 0.5}  # type: ignore[assignment]
    return network
