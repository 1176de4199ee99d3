"""A loss of one's own: `@limbeck.loss` lets any file's pure function be a method.

    import limbeck
    import torch.nn.functional as F

    @limbeck.loss(student="pooled", teacher="pooled", connect="1x1 conv", nonnegative=True, zero_at_equality=True)
    def cosine(student, teacher, *, power: float = 1.0):
        return (1 - F.cosine_similarity(student, teacher)).clamp(min=0).pow(power).mean()

    limbeck check mine.py:cosine
    limbeck distill --method mine.py:cosine --set method.power=2 ...

The function itself stays as it is, to be called anywhere. `mine.py:cosine+kd` blends it with another method.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from limbeck import places
from limbeck.connectors import AsMap, Resize, Shape, map_shape
from limbeck.errors import Mistake
from limbeck.members import Network
from limbeck.method import Method, Setting, Stage
from limbeck.methods.offline import offline
from limbeck.pairing import paired
from limbeck.terms import Match

Connect = Literal["1x1 conv"] | Callable[[Shape, Shape], nn.Module] | None
_Function = TypeVar("_Function", bound=Callable[..., Tensor])
_STAGES = ("stages", "stages.pre")
_TAKEN = ("weight", "ce")  # options that the method of every such loss has


@dataclass(frozen=True)
class Claims:
    """What a loss promises of itself; `limbeck check` holds it to its word.

    Attributes:
        zero_at_equality: It is 0, and least, where student and teacher are equal.
        minimum_at_equality: It is least there, at whatever value.
        nonnegative: It is never below 0.
        same_when_repeated: It does not change when the batch comes twice, as a mean over images does not.
    """

    zero_at_equality: bool = False
    minimum_at_equality: bool = False
    nonnegative: bool = False
    same_when_repeated: bool = False


@dataclass(frozen=True)
class Declared:
    """What `loss` was told of a function; its arguments describe each.

    Attributes:
        student: One or several taps.
        teacher: As many.
        labelled: Whether it also takes the targets.
        connect: What makes the student's side comparable.
        weight: Default weight of each term.
        ce: Default weight of the supervised loss.
        claims: What it promises.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    labelled: bool
    connect: Connect
    weight: float
    ce: float
    claims: Claims


def loss(*, student: str | Sequence[str] = "logits", teacher: str | Sequence[str] | None = None, labelled: bool = False,
         connect: Connect = None, weight: float = 1.0, ce: float = 1.0, zero_at_equality: bool = False,
         minimum_at_equality: bool = False, nonnegative: bool = False,
         same_when_repeated: bool = True) -> Callable[[_Function], _Function]:
    """Make a method of a pure function `(student, teacher[, targets], *, options) -> scalar`: ce * CE + weight * loss.

    The function's keyword-only arguments become the method's options. It is called in float32 outside autocast, the
    teacher detached. Tokens reach it as maps (N, C, H, W), vectors as (N, C).

    Args:
        student: Tap that is pulled: `logits`, `pooled`, `stage3`, any module's path; `stages` for every pair of stages,
            a term each, and `stages.pre` for them before their activation; or several taps, a term each.
        teacher: Tap that it is pulled towards, or as many; the student's by default.
        labelled: The function also takes the targets.
        connect: `1x1 conv` learns to turn the student's channels and size into the teacher's; a function
            (student shape, teacher shape) -> module builds one's own connector; None leaves both as they are.
        weight: Default weight of each term.
        ce: Default weight of the supervised loss.
        zero_at_equality: Claims that it is 0, and least, where student and teacher are equal.
        minimum_at_equality: Claims that it is least there, at whatever value.
        nonnegative: Claims that it is never below 0.
        same_when_repeated: Claims that a batch that comes twice is worth what it is worth once.

    Raises:
        Mistake: If the function's signature is another, or the taps do not pair.
    """
    own = (student,) if isinstance(student, str) else tuple(student)
    source = own if teacher is None else (teacher,) if isinstance(teacher, str) else tuple(teacher)
    claims = Claims(zero_at_equality, minimum_at_equality or zero_at_equality, nonnegative, same_when_repeated)

    def declare(function: _Function) -> _Function:
        _check_signature(function, labelled)
        _check_taps(function.__name__, own, source, connect)
        function.__limbeck__ = Declared(own, source, labelled, connect, weight, ce, claims)  # type: ignore[attr-defined]
        return function

    return declare


def declared(function: Callable[..., Any]) -> Declared | None:
    """What `loss` was told of a function; None if it was told nothing."""
    return getattr(function, "__limbeck__", None)


def _check_signature(function: Callable[..., Tensor], labelled: bool) -> None:
    tensors, name = ["student", "teacher"] + ["targets"] * labelled, function.__name__
    parameters = inspect.signature(function).parameters.values()
    leading = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(leading) != len(tensors):
        raise Mistake(f"a loss declared with labelled={labelled} takes ({', '.join(tensors)}, *, options); {name} "
                      f"takes {[p.name for p in leading]} before a star. Put its options behind a star, and set "
                      f"labelled to whether it takes the targets.")
    hints = typing.get_type_hints(function)
    for option in (p for p in parameters if p not in leading):
        if option.kind is not option.KEYWORD_ONLY or option.name not in hints or option.default is option.empty:
            raise Mistake(f"every option of a loss needs a type and a default; {name} has '{option}'. Write for "
                          f"example '{option.name}: float = 1.0'.")
        if option.name in _TAKEN:
            raise Mistake(f"'{option.name}' is an option of every loss's method; {name} has one of this name too. "
                          f"Call it otherwise.")


def _check_taps(name: str, own: tuple[str, ...], source: tuple[str, ...], connect: Connect) -> None:
    staged = [tap for tap in (*own, *source) if tap in _STAGES]
    if len(own) != len(source) or (staged and (len(own) > 1 or len(staged) < 2)):
        raise Mistake(f"{name} needs a teacher's tap for each of the student's, stages for stages; got student "
                      f"{list(own)}, teacher {list(source)}. Give as many of both.")
    if connect not in (None, "1x1 conv") and not callable(connect):
        raise Mistake(f"connect of {name} is '1x1 conv', a function (student shape, teacher shape) -> module, or None; "
                      f"got {connect!r}. Choose one of these.")


# --- making a method of it


def short(name: str) -> str:
    """What a method's terms and options are called after in a blend: `cosine` of `mine.py:cosine`."""
    return name.rpartition(":")[2] if places.is_place(name) else name


def method(name: str) -> Callable[..., Method | list[Stage]]:
    """The function that builds the method of a loss of one's own; or a whole method of one's own, as it is.

    Raises:
        Mistake: If there is none at that place, or it is neither.
    """
    function = places.find(name)
    about = declared(function)
    if about is not None:
        return _with_options(function, about)
    if "setting" in inspect.signature(function).parameters:
        return function
    raise Mistake(f"{name} is a plain function. Put @limbeck.loss(student=..., teacher=...) above it to make it a "
                  f"loss, or give it the arguments (student, teacher, setting, *, options) of a method.")


def _with_options(function: Callable[..., Tensor], about: Declared) -> Callable[..., Method]:
    """A method's function, whose options are the loss's and its two weights."""
    def build(student: Network, teacher: Network, setting: Setting, *, weight: float = about.weight,
              ce: float = about.ce, **options: Any) -> Method:
        distance = partial(function, **options)
        return offline(student, teacher, setting, {
            name: (_match(student, teacher, own, source, distance, about), weight)
            for name, own, source in _pairs(function.__name__, about, student, teacher)}, ce=ce)

    signature = inspect.signature(build)
    roles = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    build.__signature__ = signature.replace(parameters=[*roles, *options])  # type: ignore[attr-defined]
    build.__annotations__ = {**typing.get_type_hints(function), **typing.get_type_hints(build)}
    build.__doc__ = function.__doc__
    return build


def _pairs(name: str, about: Declared, student: Network, teacher: Network) -> list[tuple[str, str, str]]:
    """(term, student tap, teacher tap) of every term."""
    if about.student[0] in _STAGES:
        taps = [(_early(student, own, about.student[0]), _early(teacher, source, about.teacher[0]))
                for own, source in paired(student, teacher)]
    else:
        taps = list(zip(about.student, about.teacher, strict=True))
    if len(taps) == 1:
        return [(name, *taps[0])]
    return [((own if own == source else f"{own}>{source}").replace(".", "-"), own, source) for own, source in taps]


def _early(network: Network, stage: str, wish: str) -> str:
    """The stage, or the place before its activation if that is wished and there is one."""
    return f"{stage}.pre" if wish == "stages.pre" and f"{stage}.pre" in network.addresses else stage


def _match(student: Network, teacher: Network, own: str, source: str, distance: Callable[..., Tensor],
           about: Declared) -> Match:
    shapes = student.shape(own), teacher.shape(source)
    vectors = all(len(shape) == 1 for shape in shapes)
    connect = about.connect(*shapes) if callable(about.connect) else _connector(about.connect, *shapes)
    return Match(f"student.{own}", f"teacher.{source}", distance, connect=connect,
                 connect_source=None if vectors else AsMap(), labelled=about.labelled)


def _connector(kind: str | None, own: Shape, source: Shape) -> nn.Module | None:
    """To the teacher's channels and size by a learned 1 x 1 convolution; or as a map, unless both are vectors."""
    vectors = len(own) == len(source) == 1
    if kind is None:
        return None if vectors else AsMap()
    (inputs, *_), (outputs, height, width) = map_shape(own), map_shape(source)
    if vectors:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(AsMap(), nn.Conv2d(inputs, outputs, 1), Resize((height, width), average=True))
