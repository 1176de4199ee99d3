"""How alike networks that learn together are: the cosine between what they make of the same image (FFSD, Table IV)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

import torch
import torch.nn.functional as F

from limbeck import ranks
from limbeck.evaluation.groups import SIMILARITY
from limbeck.members import Network
from limbeck.members.branches import Branch
from limbeck.method import Method
from limbeck.seen import Seen
from limbeck.terms import full


class Cosines:
    """Mean over images of <f, g> / (|f| |g|), for every pair of networks and each of two things that they compute.

    `features` are the maps of the last stage, flattened, where a pair's have one shape; `logits` are the answers. The
    paper does not say which tensor its number is of; features are the likelier.

    Args:
        method: Whose members they are; from now on their last stages are tapped.
        names: The networks.
        device: Where they compute.
    """

    def __init__(self, method: Method, names: Sequence[str], device: torch.device):
        last = _last_stages(method, names)
        self.pairs = [(one, other, what, addresses) for one, other in combinations(names, 2)
                      for what, addresses in (("features", (last.get(one), last.get(other))),
                                              ("logits", (f"{one}.logits", f"{other}.logits"))) if all(addresses)]
        self.sums = torch.zeros(len(self.pairs), 2, dtype=torch.float64, device=device)  # of cosines, of images

    def update(self, seen: Seen) -> None:
        """Count the images of one batch."""
        for place, (_, _, _, addresses) in enumerate(self.pairs):
            f, g = (full(seen.detached(address or "")).flatten(1) for address in addresses)
            if f.shape == g.shape:
                cosines = F.cosine_similarity(f, g, dim=1)
                self.sums[place] += torch.stack([cosines.sum(), cosines.new_tensor(len(cosines))]).double()

    def result(self) -> dict[str, dict[str, float]]:
        """`SIMILARITY` -> the mean over pairs; where there are several also `SIMILARITY of A and B` -> that pair's."""
        found: dict[str, dict[str, float]] = {}
        sums = ranks.sum_over_ranks(self.sums).tolist()
        for (one, other, what, _), (cosines, images) in zip(self.pairs, sums, strict=True):
            if images:
                found.setdefault(f"{SIMILARITY} of {one} and {other}", {})[what] = cosines / images
        whats = dict.fromkeys(what for scores in found.values() for what in scores)
        mean = {what: fmean(scores[what] for scores in found.values() if what in scores) for what in whats}
        return {SIMILARITY: mean} | (found if len(found) > 1 else {}) if found else {}


def _last_stages(method: Method, names: Sequence[str]) -> Mapping[str, str]:
    """Address of each network's last stage; branches have those that their method reads."""
    found = {}
    for name in names if len(names) > 1 else ():  # a network alone is not tapped: its compiled code would be made anew
        member = method.members[name]
        if isinstance(member, Network | Branch) and member.stages:
            found[name] = f"{name}.{member.stages[-1]}"
            if isinstance(member, Network):
                member.tap(member.stages[-1:])
    return found
