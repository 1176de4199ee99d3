"""Classification without labels to score by: how often a network's first choice is its teacher's."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.tasks.classification import Classification, ClassificationMeter


@dataclass(frozen=True)
class Agreement(Classification):
    """Classification scored by targets that are a teacher's first choices; trained as ever."""

    score = "agreement"

    def meter(self) -> AgreementMeter:
        return AgreementMeter()


class AgreementMeter(ClassificationMeter):
    """Share of images, in percent, on which the first choice is the teacher's: `agreement`."""

    def result(self) -> dict[str, float]:
        return {"agreement": super().result()["top1"]}
