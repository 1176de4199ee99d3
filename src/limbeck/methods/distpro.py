"""DistPro: a term per pathway (teacher tap, student tap, transform), and a searched process over all of them.

Which layer should teach which, how hard and when, is learned on held-out images while a student trains, recorded, and
replayed at full length, for this pair of networks or another. The terms stand here; the search that any method can have
is in `limbeck.search`, the replay in `limbeck.process`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from limbeck.errors import Mistake, nearest
from limbeck.losses import hcl
from limbeck.members import Network
from limbeck.method import Method, Setting
from limbeck.methods.answers import towards
from limbeck.process import Scheduled
from limbeck.terms import Match, Supervise, Term
from limbeck.transforms import as_target, transform


@dataclass(frozen=True)
class Space:
    """Which pathways there are.

    Attributes:
        before: Taps before the stages.
        after: Taps after the stages.
        pyramid: After them also what a segmentation head's pyramid gives, where both networks have such.
        triangular: Only pathways to a student tap at least as deep as the teacher's.
        transforms: Kinds of transform; a pathway each.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    triangular: bool
    transforms: tuple[str, ...]
    pyramid: bool = False

    def taps(self, network: Network, other: Network) -> list[str]:
        """This space's taps of one of two networks, shallow first."""
        both = network.addresses.keys() & other.addresses.keys()
        return [*self.before, *network.stages, *self.after, *["psp"] * (self.pyramid and "psp" in both)]


SPACES = {
    "paper27": Space((), (), False, ("c2", "c3", "complex")),
    "official10": Space(("stem",), (), True, ("complex",)),
    "imagenet15": Space((), ("pooled",), True, ("complex",)),
    "dense": Space((), (), True, ("complex",), pyramid=True),
}
"""The paper's for CIFAR (3 stages: 27 pathways), the released code's (4 taps: 10), the paper's for ImageNet (5: 15);
our reading for dense tasks: 4 stages, with a pyramid 5 taps (10, 15).

A vision transformer as the student has one transform, `tokens`, in every space; with `imagenet15` its four stages, a
quarter of the blocks each, and its final class token make the 15 pathways of ViT-B -> DeiT-tiny.
"""


def distpro(student: Network, teacher: Network, setting: Setting, *,
            space: Literal["paper27", "official10", "imagenet15", "dense"] | None = None,
            teacher_taps: Sequence[str] | None = None, student_taps: Sequence[str] | None = None,
            pairs: Literal["all", "triangular"] | None = None, transforms: Sequence[str] | None = None,
            before_activation: bool = True, kl: float = 0.0, temperature: float = 4.0) -> Method:
    """CE + sum_i w_i HCL(transform_i(student tap), teacher tap): all pathways weigh the same until a process says more.

    A pathway is named `t3>s2/complex`: teacher stage 3 to student stage 2 through `complex`; a stem is 0, other taps
    keep their name, dashes in place of dots. By these names a process found on one pair of networks replays on another.
    Stages of a vision transformer are its patches' tokens; as a teacher's they are brought to mean 0 and variance 1 at
    every place, as some of their channels are much larger than the rest.

    Args:
        student: Learns.
        teacher: Frozen; never transformed.
        setting: The job.
        space: Which pathways: `paper27`, `official10`, `imagenet15` or `dense`; None: `dense` where maps are answered,
            else `paper27`.
        teacher_taps: The teacher's taps, shallow first, in place of the space's.
        student_taps: The student's taps, shallow first, in place of the space's.
        pairs: `all`, or `triangular` (student tap at least as deep, as a part of the way), in place of the space's.
        transforms: Kinds of transform, in place of the space's, or of `tokens` where the student is a transformer.
        before_activation: Tap stages before their activation where there is such a place.
        kl: Weight of a further term, the divergence of softened logits; the method has none.
        temperature: Of that term.

    Raises:
        Mistake: If a tap or a transform does not exist.

    Source: Deng et al., DistPro: Searching a Fast Knowledge Distillation Process via Meta Optimization, ECCV 2022,
    arXiv:2204.05547. The paper does not list its three transforms: the released builders with self-attention are taken.
    """
    if (space := space or ("paper27" if setting.task.name == "classification" else "dense")) not in SPACES:
        raise Mistake(f"there is no space '{space}' of pathways; {nearest(space, SPACES)}")
    chosen = SPACES[space]
    sources = list(teacher_taps or chosen.taps(teacher, student))
    pulled = list(student_taps or chosen.taps(student, teacher))
    triangular = chosen.triangular if pairs is None else pairs == "triangular"
    kinds = transforms or (("tokens",) if student.of_tokens else chosen.transforms)
    terms: dict[str, Term] = {
        f"t{_short(source)}>s{_short(tap)}/{kind}": _pathway(student, teacher, tap, source, kind, before_activation)
        for i, source in enumerate(sources, start=1) for j, tap in enumerate(pulled, start=1)
        if j * len(sources) >= i * len(pulled) or not triangular for kind in kinds}
    further = {"kl": towards(setting.task, "student", "teacher", temperature=temperature)} if kl else {}
    return Method(
        members={"student": student},
        frozen={"teacher": teacher},
        terms={"ce": Supervise("student", setting.task), **terms, **further},
        process=Scheduled({"ce": 1.0, **dict.fromkeys(terms, 1.0), **dict.fromkeys(further, kl)}),
    )


def _pathway(student: Network, teacher: Network, tap: str, source: str, kind: str, before_activation: bool) -> Match:
    own, target = (_before(n, t) if before_activation else t for n, t in ((student, tap), (teacher, source)))
    return Match(f"student.{own}", f"teacher.{target}", hcl,
                 connect=transform(kind, student.shape(own), teacher.shape(target)),
                 connect_source=as_target(teacher.shape(target), tokens=teacher.holds_tokens(target)))


def _before(network: Network, tap: str) -> str:
    return f"{tap}.pre" if f"{tap}.pre" in network.addresses else tap


def _short(tap: str) -> str:
    return "0" if tap == "stem" else tap.removeprefix("stage").replace(".", "-")  # a term's name has no dots
