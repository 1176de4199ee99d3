"""A leader over networks that learn together, as FFSD has it and as its Table V adds it to other methods.

The networks' last maps are fused; the fused map and its classifier teach the leader, which rebuilds the networks' maps
from its own. A network's *carrier* (the self-distillation module) learns, by terms of its own, to turn that network's
deep map into its shallow ones; it is lent to carry somebody else's deep map, and the network is pulled to the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from limbeck.connectors import AsMap, as_map, map_shape
from limbeck.losses import attention_transfer, unit_mse
from limbeck.members import Member, Network
from limbeck.method import Setting
from limbeck.methods.answers import towards, whole_images
from limbeck.methods.fusing import Carried, Carrier, Decoder, Fusion
from limbeck.process import Schedule, exponential_ramp
from limbeck.terms import Distance, Match, Supervise, Term

Pulls = dict[str, tuple[Term, float | Schedule]]
Parts = tuple[dict[str, Member], Pulls]
"""Members, and term name -> (term, weight)."""

_ADAM = {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}
_FUSION = {"weight_decay": 1e-5}


def lead(leader: Network, maps: Sequence[str], setting: Setting, *, temperature: float = 2.0, fused: float = 10.0,
         carried: float = 10.0, carrier: float = 1000.0, warm_up: float = 5 / 300, fusion: bool = True,
         self_distillation: bool = True, feature_loss: Literal["attention", "feature"] = "attention") -> Parts:
    """The members `leader`, `fusion`, `decoder`, the leader's carrier and its target, and what pulls them.

    Args:
        leader: Feels nothing of the networks but by what they teach; they feel nothing of it.
        maps: Addresses of the networks' last maps, shaped like the leader's; `ensemble.logits` is their mean answer.
        setting: The job.
        temperature: T.
        fused: Weight of the fused map, and of the decoder.
        carried: Weight of the leader's shallow stages.
        carrier: Weight of the carrier's own training.
        warm_up: Part of the run over which these three rise.
        fusion: False leaves the ensemble as the leader's only teacher.
        self_distillation: Whether the leader has a carrier.
        feature_loss: Whether maps are compared by their `attention`, or as a `feature` each.
    """
    stages, rising = leader.stages, partial(exponential_ramp, over=warm_up)
    last, shape = f"leader.{stages[-1]}", map_shape(leader.shape(stages[-1]))
    pulled = partial(towards, setting.task, temperature=temperature)
    members: dict[str, Member] = {"leader": leader}
    pulls: Pulls = {"leader/ce": (Supervise("leader", setting.task), 1.0)}
    if not fusion:
        return members, pulls | {"leader/kl": (pulled("leader", "ensemble"), 1.0)}
    whole_images("a leader that learns from fused maps", setting.task, "the classifier of these gives")
    same = attention_transfer if feature_loss == "attention" else unit_mse
    members |= {"fusion": Fusion(maps, [shape] * len(maps), leader.num_classes),
                "decoder": Decoder(last, shape[0], len(maps))}
    pulls |= {
        "leader/kl": (pulled("leader", "fusion"), 1.0),
        "leader/fused": (of_maps(last, "fusion.features", same), rising(fused)),
        "leader/decoded": (Match("decoder.maps", tuple(maps), partial(_joined, same)), rising(fused)),
        "fusion/ce": (Supervise("fusion", setting.task), 1.0),
        "fusion/kl": (pulled("fusion", "ensemble"), 1.0),
    }
    if not self_distillation:
        return members, pulls
    more, carrying = carry("leader", leader, "fusion.features", rising(carried), trained=rising(carrier), distance=same)
    return members | more, pulls | carrying


def carry(name: str, network: Network, source: str, weight: float | Schedule, *, trained: float | Schedule,
          distance: Distance = attention_transfer, diverse: bool = False) -> Parts:
    """A network's carrier with its training, and the pull of the network's shallow stages to what it makes of a source.

    Args:
        name: What the method calls the network.
        network: Whose shallow stages are pulled, each to what is carried there.
        source: Address of somebody's deep map; it feels nothing.
        weight: Of each stage's pull.
        trained: Of each stage's term of the carrier's own training.
        distance: Between a stage and what is carried there.
        diverse: Carry the source's diversity target in place of the source.
    """
    stages = network.stages
    carrier = Carrier(f"{name}.{stages[-1]}", stages, [map_shape(network.shape(stage)) for stage in stages])
    pulls: Pulls = {}
    for stage in stages[:-1]:
        true = f"{name}.{stage}"
        pulls[f"{name}/carried-{stage}"] = (of_maps(true, f"target_{name}.{stage}", distance), weight)
        pulls[f"carrier_{name}/{stage}"] = (of_maps(f"carrier_{name}.{stage}", true, _both), trained)
    return {f"carrier_{name}": carrier, f"target_{name}": Carried(carrier, source, diverse=diverse)}, pulls


def of_maps(pulled: str, source: str, distance: Distance) -> Match:
    """A distance of maps, whatever the two addresses hold."""
    return Match(pulled, source, distance, connect=AsMap(), connect_source=AsMap())


def lent_first(pulls: Mapping[str, tuple[Term, float | Schedule]]) -> Pulls:
    """The carriers' own training behind all else, so that what is lent has the statistics of the steps before."""
    return dict(sorted(pulls.items(), key=lambda item: item[0].startswith("carrier_")))


def own_optimizers(members: Mapping[str, Member]) -> dict[str, Mapping[str, Any]]:
    """What fusion and carriers have otherwise, as released."""
    return {name: _ADAM if isinstance(member, Carrier) else _FUSION for name, member in members.items()
            if isinstance(member, Carrier | Fusion)}


def _both(carried: Tensor, true: Tensor) -> Tensor:
    """A carrier's own distance: of maps, and of where they attend."""
    return unit_mse(carried, true) + attention_transfer(carried, true)


def _joined(distance: Distance, decoded: Tensor, sources: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The distance to several maps one after the other along channels."""
    several = sources if isinstance(sources, tuple) else (sources,)
    return distance(decoded, torch.cat([as_map(source) for source in several], dim=1))
