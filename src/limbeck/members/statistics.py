"""What images a network expects: their mean and spread."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.errors import Mistake


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the images that a network expects, per channel, for values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or any(s <= 0 for s in self.std):
            raise Mistake(f"input statistics need one mean and one positive std per channel; got mean {self.mean}, "
                          f"std {self.std}. Give both with as many numbers as the images have channels.")


STATISTICS = {
    "identity": Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar100": Statistics((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "reviewkd": Statistics((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "ffsd": Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Input statistics by the name of who published checkpoints with them."""
