"""AFD: peers pull one another by their logits, and each draws its last map where a judge cannot tell it from another's.

A judge of each network tells the map of the network before it in the ring (true) from its own network's (false). The
network learns to fool the judge, which is lent to it for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, autocast, nn

from limbeck.connectors import Resize, as_map, map_shape, projection
from limbeck.members import Member, Network, lend
from limbeck.method import Setting, Stage, Turn
from limbeck.methods.answers import towards
from limbeck.methods.online import group, online, supervision
from limbeck.seen import Outputs, Seen
from limbeck.terms import Term, full

MapShape = tuple[int, int, int]
_ADAM = {"name": "adam", "lr": 2e-5, "weight_decay": 0.1}


class Transfer(Member):
    """A network's last map, brought to the shape that all peers' maps can be brought to.

    Args:
        read: Address of the map.
        own: Its shape.
        common: (C, H, W), none of them above its own.
    """

    def __init__(self, read: str, own: MapShape, common: MapShape):
        super().__init__()
        self.reads = (read,)
        self.bring = nn.Identity() if own == common else nn.Sequential(
            projection(own, common), Resize(common[1:], average=True))

    def forward(self, seen: Seen) -> Outputs:
        return {"map": self.bring(as_map(seen[self.reads[0]]))}


class Judge(Member):
    """How sure it is that each of two maps is another network's: 1 for `other`, 0 for `own` is right.

    Args:
        own: Address of its network's map, which feels nothing of it.
        other: Address of the other network's, which feels nothing either.
        channels: Of both.
    """

    def __init__(self, own: str, other: str, channels: int):
        super().__init__()
        self.reads, half, quarter = (own, other), max(1, channels // 2), max(1, channels // 4)
        self.decide = nn.Sequential(
            nn.Conv2d(channels, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half), nn.LeakyReLU(0.2),
            nn.Conv2d(half, quarter, 3, padding=1, bias=False), nn.BatchNorm2d(quarter), nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(quarter, 1), nn.Sigmoid())

    def forward(self, seen: Seen) -> Outputs:
        own, other = (self.decide(seen.detached(address)) for address in self.reads)
        return {"own": own, "other": other}


class Fooled(Member):
    """What a judge, lent by the batch's statistics, says of its own network's map, which feels it.

    Args:
        judge: Stays whose it is.
    """

    judge: Judge

    def __init__(self, judge: Judge):
        super().__init__()
        self.__dict__["judge"] = judge
        self.reads = judge.reads[:1]

    def forward(self, seen: Seen) -> Outputs:
        return {"own": lend(self.judge.decide, seen[self.reads[0]], batch_statistics=True)}


class Away(Term):
    """mean (x - value)^2: how far a judge's word is from what it is to be.

    Args:
        address: The word, (N, 1).
        value: 1 or 0.
    """

    def __init__(self, address: str, value: float):
        super().__init__()
        self.reads, self.owner, self.value = (address,), address.partition(".")[0], value

    def forward(self, seen: Seen) -> Tensor:
        with autocast(seen.batch.images.device.type, enabled=False):
            return (full(seen[self.reads[0]]) - self.value).square().mean()


def afd(student: Network, setting: Setting, *, peers: Sequence[Network] = (), copies: int = 1, temperature: float = 3.0,
        ce: float = 1.0, kl: float = 1.0, adversarial: float = 1.0) -> list[Stage]:
    """A variant of AFD: its losses, with a discriminator of our own. Network k, the one before it in the ring being j:

        logits:    ce * CE + kl * T^2 KL(j || k)
        features:  adversarial * mean (1 - D_k(map_k))^2
        judge k:   adversarial * [mean (1 - D_k(map_j))^2 + mean D_k(map_k)^2]
    Two turns a step: the logits, by the run's optimiser; then, from a new forward pass, maps and judges, by the
    optimiser `adversarial`, which is Adam(2e-5) with decay 0.1 (optimizers.adversarial.lr=1e-4 sets it otherwise). A
    judge's two terms show whether it teaches: near 0.25 each it guesses, near 0 it always knows, and then it does not.

    Args:
        student: Learns, and ships.
        setting: The job.
        peers: Who learns beside it, of any architecture; none for copies of the student. The ring goes from the last
            of them to the student.
        copies: Untrained copies of the student that learn beside it, where no peers are given.
        temperature: T.
        ce: Weight of the supervised losses.
        kl: Weight of the divergences.
        adversarial: Weight of judges and maps; 0 leaves them out. Adam makes little of its size.

    Raises:
        Mistake: If nobody is beside the student.

    Source: Chung et al., Feature-map-level Online Adversarial Knowledge Distillation, ICML 2020; losses and order from
    others' notes, settings from memory, no code known. Ours: the judge's layers; maps of other shapes go through a
    1 x 1 convolution and batch norm to the fewest channels and by means over cells to the smallest size; the second
    forward pass, where the authors have one for both updates, by which batch norm counts each batch twice.
    """
    networks = group(student, peers, copies, setting.seed)
    names, members, fooling, judging = list(networks), dict[str, Member](), dict[str, Term](), dict[str, Term]()
    shapes = {name: map_shape(network.shape(network.stages[-1])) for name, network in networks.items()}
    channels, height, width = (min(sizes) for sizes in zip(*shapes.values(), strict=True))
    before = {name: names[k - 1] for k, name in enumerate(names)}
    mutual = {f"{name}/{other}": towards(setting.task, name, other, temperature=temperature)
              for name, other in before.items()}
    for name, other in before.items() if adversarial else ():
        judge = Judge(f"map_{name}.map", f"map_{other}.map", channels)
        last = f"{name}.{networks[name].stages[-1]}"
        members |= {f"map_{name}": Transfer(last, shapes[name], (channels, height, width)), f"judge_{name}": judge,
                    f"fooled_{name}": Fooled(judge)}
        fooling[f"{name}/fools"] = Away(f"fooled_{name}.own", 1.0)
        judging |= {f"judge_{name}/own": Away(f"judge_{name}.own", 0.0),
                    f"judge_{name}/other": Away(f"judge_{name}.other", 1.0)}
    both = {name: (term, adversarial) for name, term in (fooling | judging).items()}
    turns = [Turn(frozenset({*map(supervision, names), *mutual}), frozenset(names))]
    turns += [Turn(frozenset(both), optimizer="adversarial")] if both else []
    method = online(networks, setting, {**{name: (term, kl) for name, term in mutual.items()}, **both}, ce=ce,
                    members=members, turns=turns)
    return [Stage(method, optimizers={"adversarial": _ADAM} if both else {})]
