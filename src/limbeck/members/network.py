"""A network that looks at the images, normalised for itself and read at named layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import Mistake, nearest
from limbeck.members.folding import folded
from limbeck.members.member import Member, fingerprint
from limbeck.members.recomputing import outermost, recomputed
from limbeck.members.statistics import Statistics
from limbeck.seen import Outputs, Seen
from limbeck.taps import Address, Reader, clean_copy
from limbeck.taps.blocks import blocks
from limbeck.taps.calls import compiled
from limbeck.taps.layouts import VIEWS, Layout
from limbeck.taps.stages import Found, explore


class Network(Member):
    """A network that looks at the images, normalised (and resized, if asked) for itself, read at named layers.

    Args:
        module: Any nn.Module from normalised images (N, C, H, W) to logits. It is not edited. Its `taps`, where it has
            such, are canonical names of its layers; its `auxiliary`, tap -> weight, is the member's. One that
            torch.compile returned runs compiled, taps included, and keeps the names and keys of the module itself.
        name: What messages call it.
        size: (C, H, W) of the images that it sees.
        statistics: Its input statistics.
        resize: Resize other images to `size`, bilinearly and antialiased; False passes them as they come.
        factory: Builds an untrained module of the same architecture; needed for `fresh`.
        places: Which of the module's logits it answers with, in this order: a finished network that knows other classes
            than the data, or knows them in another order. None for all.

    Attributes:
        unmatched: Why its logits are no answers for the data's classes, if so: then it can teach by its features alone.
        view: Which of `batch.views` it looks at in training; None is the images themselves. In eval mode everyone looks
            at these.
        precise: Whether it computes in float32 under autocast too.
    """

    answers = True
    view: int | None = None
    unmatched: str | None = None
    precise = False
    mean: Tensor
    std: Tensor
    places: Tensor | None
    _light: Reader | None

    def __init__(self, module: nn.Module, *, name: str, size: tuple[int, int, int], statistics: Statistics,
                 resize: bool = False, factory: Callable[[], nn.Module] | None = None,
                 places: Sequence[int] | None = None):
        super().__init__()
        self.module: nn.Module = getattr(module, "_orig_mod", module)
        self.__dict__["run"] = module  # no submodule: its parameters are the module's
        self.name, self.size, self.statistics, self.resize, self.factory = name, size, statistics, resize, factory
        self.auxiliary = dict(getattr(module, "auxiliary", {}))
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("places", None if places is None else torch.tensor(places), persistent=False)
        self._blocks: Sequence[nn.Module] = ()
        self._found: Found | None = None
        self._lighten, self._light = False, None
        self._reader = self._read({})

    def _dummy(self) -> Tensor:
        like = next(self.module.parameters(), self.mean)
        return torch.zeros(1, *self.size, device=like.device, dtype=like.dtype)

    def _read(self, taps: Mapping[str, str]) -> Reader:
        layouts = self.found.layouts if taps else {}
        return Reader(self.module, taps, self._dummy(), layouts=layouts, run=self.__dict__["run"])

    @property
    def found(self) -> Found:
        """What a dummy batch shows of this network."""
        if self._found is None:
            self._reader.remove()
            self._found = explore(self.module, self._dummy())
            self._reader = self._read({})
        return self._found

    @property
    def addresses(self) -> dict[str, str]:
        """Canonical taps of this network and the layers they stand for."""
        return self.found.taps

    @property
    def stages(self) -> tuple[str, ...]:
        """`stage1`, `stage2`... as many as this network has."""
        found = [tap for tap in self.addresses if tap.startswith("stage") and tap[5:].isdigit()]
        return tuple(sorted(found, key=lambda tap: int(tap[5:])))

    @property
    def of_tokens(self) -> bool:
        """Whether its last stage is tokens, as a vision transformer's."""
        return bool(self.stages) and self.holds_tokens(self.stages[-1])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Taps of the blocks that make up the stages, shallow first; a stage without blocks stands for itself."""
        paths = blocks(self.module, [Address.parse(self.addresses[stage]).tensor for stage in self.stages])
        return tuple(map(self.as_map, paths))

    @property
    def num_classes(self) -> int:
        """Number of logits: of an image, or of each pixel."""
        return self._reader.shapes["logits"][0] if self.places is None else len(self.places)

    def tap(self, taps: Iterable[str]) -> None:
        """Read these from now on, beside what is read already.

        Args:
            taps: Canonical names or module addresses.

        Raises:
            Mistake: If one is neither, with the nearest names.
        """
        wanted = dict.fromkeys([*self._reader.shapes, *taps])
        wanted.pop("logits", None)
        if wanted.keys() == self._reader.shapes.keys() - {"logits"}:
            return
        reader = self._read({tap: self.resolve(tap) for tap in wanted})
        self._reader.remove()
        self._reader, self._light = reader, None

    def resolve(self, tap: str) -> str:
        """The address that a tap stands for.

        Args:
            tap: A canonical name or a module's address, or either with what it is read as: `stage2:cls`.

        Raises:
            Mistake: If it is neither a canonical name nor a module of this network.
        """
        if tap in self.addresses:
            return self.addresses[tap]
        if tap == "pooled" and len(self._reader.shapes["logits"]) > 1:
            raise Mistake(f"a pooled feature is one vector an image; {self.name} answers with maps and has none. Name "
                          f"another layer, or a method that compares maps.")
        name, colon, view = tap.rpartition(":")
        if colon and view in VIEWS and name in self.addresses:
            return f"{Address.parse(self.addresses[name]).tensor}:{view}"
        paths = dict(self.module.named_modules())
        if tap.partition(":")[0].partition("#")[0] in paths:
            return tap
        raise Mistake(f"{self.name} has no layer '{tap}'; {nearest(tap, [*self.addresses, *filter(None, paths)])}")

    def shape(self, tap: str) -> tuple[int, ...]:
        """Shape of a tap without the batch dimension: (C, H, W) of a map, (T, C) of tokens, (C,) of a vector."""
        self.tap([tap])
        shape = self._reader.shapes[tap]
        return (self.num_classes, *shape[1:]) if tap == "logits" else shape

    def layout(self, tap: str) -> Layout | None:
        """How the tensor behind a tap holds places and channels, before it is read as anything; None for vectors."""
        return self.found.layouts.get(Address.parse(self.resolve(tap)).tensor)

    def holds_tokens(self, tap: str) -> bool:
        """Whether a tap's places are tokens', however it reads them; a single token has none."""
        layout = self.layout(tap)
        return layout is not None and layout.kind == "tokens" and len(self.shape(tap)) > 1

    def as_map(self, tap: str) -> str:
        """The tap that reads this one's tensor as a map (N, C, H, W): itself where it is one."""
        layout = self.layout(tap)
        return tap if layout is None or layout.kind == "map" or self.resolve(tap).endswith(":map") else f"{tap}:map"

    def as_it_is(self, tap: str) -> str:
        """The tap of this one's tensor as its layer returns it: itself unless it is read as something else."""
        address = Address.parse(self.resolve(tap))
        return address.tensor if address.view else tap

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1], (N, C, H, W), as this network expects them."""
        return prepared(images, self.mean, self.std, self.size[1:] if self.resize else None)

    def forward(self, seen: Seen) -> Outputs:
        """Every tapped tensor and the logits on this step's images."""
        if self.view is None or not self.training:
            return self.read(seen.batch.images)
        return self.read(seen.batch.views[self.view])

    def read(self, images: Tensor) -> Outputs:
        """Every tapped tensor and the logits on images in [0, 1], (N, C, H, W)."""
        again = self._blocks if self.training and torch.is_grad_enabled() else ()
        with (torch.autocast(images.device.type, enabled=False) if self.precise else nullcontext(),
              recomputed(again) if again else nullcontext()):
            outputs = self._reading(images)(self.normalise(images))
        if self.places is not None:
            for tap in {"logits", *self.auxiliary} & outputs.keys():
                outputs[tap] = outputs[tap].index_select(1, self.places)
        return outputs

    def lighten(self, wanted: bool) -> None:
        """Whether passes under bf16 autocast run a copy that costs less, see `folding`: of a finished network alone.

        The copy is made when it is first needed, of the weights that are there then. A compiled network has none.
        """
        self._lighten, self._light = wanted, None

    def _reading(self, images: Tensor) -> Reader:
        """Who reads these images: the module's reader, or the light copy's."""
        device = images.device.type
        if (not self._lighten or torch.is_grad_enabled() or not torch.is_autocast_enabled(device)
                or torch.get_autocast_dtype(device) is not torch.bfloat16):
            return self._reader
        if self._light is None:
            self._light = self._lightened()
            self._lighten = self._light is not None
        return self._light or self._reader

    def _lightened(self) -> Reader | None:
        if self.__dict__["run"] is not self.module or compiled(self.module.modules()):
            return None
        dummy = self._dummy()
        with torch.autocast(dummy.device.type, enabled=False):
            taps = {tap: self.resolve(tap) for tap in self._reader.shapes if tap != "logits"}
            layouts = self.found.layouts if taps else {}
            light = folded(self.module, dummy, {Address.parse(address).path for address in taps.values()})
        try:
            return Reader(light, taps, dummy, layouts=layouts)
        except RuntimeError:  # its own code asks more of its layers than autocast does
            return None

    def _apply(self, fn: Any, recurse: bool = True) -> Network:
        self._light = None
        return super()._apply(fn, recurse)

    def recompute(self, wanted: bool) -> None:
        """Whether, in training, blocks keep their input alone and compute the rest again for the backward pass."""
        self._blocks = outermost(self.module, self.blocks) if wanted else ()

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images in [0, 1]."""
        return self.read(images)["logits"]

    def fresh(self, seed: int) -> Network:
        """An untrained network of the same architecture, statistics and size; the global random state stays as it was.

        Raises:
            Mistake: If it is not known how to build one.
        """
        if self.factory is None:
            raise Mistake(f"an untrained copy of {self.name} is needed, and it came as a finished module. "
                          f"Give Network a factory, or name it as a zoo, timm:, torchvision: or py: network.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's generators too
            module = self.factory()
        return Network(module, name=self.name, size=self.size, statistics=self.statistics, resize=self.resize,
                       factory=self.factory, places=None if self.places is None else self.places.tolist())

    def deployed(self) -> nn.Module:
        return clean_copy(self.module)

    def fingerprint(self) -> str:
        """Short hash of name, input statistics, every weight and buffer, and the logits it answers with if not all."""
        chosen = () if self.places is None else (self.places.tolist(),)
        return fingerprint(repr((self.name, self.size, self.statistics, *chosen)), self.module)


def prepared(images: Tensor, mean: Tensor, std: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Images in [0, 1], (N, C, H, W), normalised; brought to a size first, bilinearly and antialiased, if one is given.

    Args:
        images: In [0, 1].
        mean: Of each channel, (1, C, 1, 1).
        std: Of each channel, (1, C, 1, 1).
        size: Height and width; None passes images as they come.
    """
    if size is not None and images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return (images - mean) / std
