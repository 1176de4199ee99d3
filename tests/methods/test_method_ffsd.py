"""FFSD: every player's total on fixed maps against the formulas of specs/ffsd.md, written plainly; switches; sizes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from features_tiny import convolved, losses, normed, parameters, weights_of
from methods_tiny import NOW, ce, kl, setting, trainer
from torch import Tensor, nn

from limbeck.contract.steps import step
from limbeck.contract.trial import CLASSES, NETS, batch, tiny
from limbeck.contract.values import members_reached
from limbeck.errors import Mistake, Stopped
from limbeck.members import STATISTICS, Network
from limbeck.method import Method, Stage
from limbeck.methods.ffsd import ffsd
from limbeck.methods.fusing import Carrier
from limbeck.methods.leading import lead
from limbeck.networks import build
from limbeck.seen import Clock
from limbeck.training.trainer import Trainer

Maps = dict[str, Tensor]
SHAPES = {"stage1": (8, 16, 16), "stage2": (8, 8, 8), "stage3": (16, 4, 4)}


def made(**options) -> tuple[Method, dict[str, Maps]]:
    """The method in float64 on fixed maps and logits; the carriers' running statistics are no longer 0 and 1."""
    method = ffsd(tiny(), setting(), **options)[0].method.double().train()
    chance = torch.Generator().manual_seed(3)
    for name, buffer in method.named_buffers():
        if "carrier" in name and "running" in name:
            drawn = torch.rand(buffer.shape, generator=chance, dtype=torch.float64)
            buffer.copy_(drawn + 0.5 if "var" in name else drawn - 0.5)
    known = {}
    for name in [name for name in method.members if name.startswith(("student", "leader"))]:
        known[name] = {tap: torch.randn(8, *shape, generator=chance, dtype=torch.float64).requires_grad_()
                       for tap, shape in {"logits": (CLASSES,), **SHAPES}.items()}
        for tap in SHAPES:
            known[name][tap].data.relu_()
    return method, known


def players(method: Method, known: dict[str, Maps], now: Clock = NOW) -> dict[str, Tensor]:
    """Each player's weighted loss, by the first part of its terms' names."""
    weights, totals = weights_of(method, now), dict[str, Tensor]()
    for name, loss in losses(method, known, now).items():
        player = name.partition("/")[0]
        totals[player] = totals.get(player, 0) + weights[name] * loss
    return totals


# --- the formulas of specs/ffsd.md, sections 3 and 4


def attention(x: Tensor) -> Tensor:
    """(7): (N, H, W)."""
    return (x**2).sum(1) / x.shape[1]


def length(x: Tensor) -> Tensor:
    """Of each sample, (N, 1, 1...)."""
    return x.flatten(1).pow(2).sum(1).sqrt().view(-1, *[1] * (x.ndim - 1))


def distance(x: Tensor, y: Tensor) -> Tensor:
    """D."""
    return ((x / length(x) - y / length(y)) ** 2).sum() / x.numel()


def attentions(x: Tensor, y: Tensor) -> Tensor:
    return distance(attention(x), attention(y))


def turned(before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(8), image by image: the target, A at length 1, and A's length."""
    targets, units, lengths = [], [], []
    for a in attention(before.detach()):
        n = (a**2).sum().sqrt()
        unit = a / n
        least = sorted(unit.flatten().tolist())[int(a.numel() / 3) - 1]
        target = torch.where(unit > least, n - unit, unit)
        targets.append(torch.where(unit == least, n / 2, target))
        units.append(unit)
        lengths.append(n)
    return torch.stack(targets), torch.stack(units), torch.stack(lengths).view(-1, 1, 1)


def diversity(own: Tensor, before: Tensor) -> Tensor:
    """(9)."""
    a = attention(own)
    return ((a / length(a) - turned(before)[0]) ** 2).sum() / a.numel()


def diverse_map(before: Tensor) -> Tensor:
    """What a carrier is given in the place of the last map of the student before."""
    target, unit, n = turned(before)
    return before.detach() + ((target - unit) * n / before.shape[1])[:, None]


def pair(x: Tensor, parts: nn.Sequential) -> Tensor:
    """A depth-wise 3 x 3 and a 1 x 1 convolution by the batch's statistics."""
    x = F.relu(normed(convolved(x, parts[0], padding=1, groups=x.shape[1])))
    return F.relu(normed(convolved(x, parts[3])))


def carried(x: Tensor, carrier: Carrier, *, train: bool) -> Maps:
    """The self-distillation module, deep to shallow."""
    maps = {}
    for stage, block in (("stage2", carrier.blocks[1]), ("stage1", carrier.blocks[0])):
        x = F.conv_transpose2d(x, block[0].weight, stride=2, padding=1, output_padding=1)
        norm = block[1]
        mean, variance = (statistic[:, None, None] for statistic in (norm.running_mean, norm.running_var))
        x = F.relu(normed(x) if train else (x - mean) / (variance + 1e-5).sqrt())
        maps[stage] = x
    return maps


def carrier_loss(maps: Maps, carrier: Carrier) -> Tensor:
    """(10) with mu = 1 and the scale of 1000."""
    made_of = carried(maps["stage3"].detach(), carrier, train=True)
    return 1000 * sum(distance(made_of[s], maps[s]) + attentions(made_of[s], maps[s]) for s in ("stage1", "stage2"))


def close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def expected_players(method: Method, known: dict[str, Maps], *, beta: float = 10, gamma: float = 10,
                     scale: float = 1e-5) -> dict[str, Tensor]:
    """Totals of all players, by section 4, before the running statistics move."""
    members, names = method.members, [name for name in known if name != "leader"]
    maps, z = [known[name]["stage3"] for name in names], {name: own["logits"] for name, own in known.items()}
    totals = {name: ce(z[name]) + sum(kl(z[name], z[other].detach(), 2.0) for other in names if other != name)
              / (len(names) - 1) for name in names}
    for before, name in pairwise(names):  # (9), (11), (12)
        carrier = members[f"carrier_{name}"]
        target = carried(diverse_map(known[before]["stage3"]), carrier, train=False)
        deep = sum(attentions(known[name][s], target[s]) for s in ("stage1", "stage2"))
        totals[name] = totals[name] + scale * (diversity(known[name]["stage3"], known[before]["stage3"]) + deep)
        totals[f"carrier_{name}"] = carrier_loss(known[name], carrier)
    together = torch.cat(maps, dim=1)  # (4), (5), (13), (14)
    fused = pair(together, members["fusion"].fuse)
    answer = fused.mean((2, 3)) @ members["fusion"].classify.weight.T + members["fusion"].classify.bias
    totals["fusion"] = ce(answer) + kl(answer, sum(z[name] for name in names) / len(names), 2.0)
    own = known["leader"]
    decoded = pair(own["stage3"], members["decoder"].decode)
    target = carried(fused, members["carrier_leader"], train=False)
    totals["leader"] = (ce(z["leader"]) + kl(z["leader"], answer, 2.0)
                        + beta * (attentions(own["stage3"], fused) + attentions(decoded, together))
                        + gamma * sum(attentions(own[s], target[s]) for s in ("stage1", "stage2")))
    totals["carrier_leader"] = carrier_loss(own, members["carrier_leader"])
    return totals


@pytest.mark.parametrize("students", [2, 3])
def test_every_players_total_is_the_papers(students: int) -> None:
    method, known = made(students=students)
    expected = expected_players(method, known)
    found = players(method, known)
    assert set(found) == set(expected)
    for name, total in expected.items():
        close(found[name], total)


def test_weights_are_where_the_formulas_have_them() -> None:
    method, known = made(fused=3.0, carried=1000.0, diversity=0.5, carrier=500.0)
    expected = expected_players(method, known, beta=3.0, gamma=1000.0, scale=0.5)
    found = players(method, known)
    for name, total in expected.items():
        close(found[name], total / 2 if name.startswith("carrier") else total)


def slopes(total: Tensor, outputs: Maps) -> list[Tensor]:
    """Gradients at a network's outputs, zeros where there is none."""
    found = torch.autograd.grad(total, list(outputs.values()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(outputs.values(), found, strict=True)]


def test_each_network_gets_the_gradient_of_its_own_total_from_the_sum_of_all() -> None:
    method, known = made(students=3)
    own, together = expected_players(method, known), sum(players(method, known).values())
    for name, outputs in known.items():
        for found, alone in zip(slopes(together, outputs), slopes(own[name], outputs), strict=True):
            torch.testing.assert_close(found, alone, rtol=1e-6, atol=1e-12)


def test_players_pull_nobody_else() -> None:
    """The leader feels nothing of the students, they nothing of it or the fusion; carriers only their own training."""
    method = ffsd(tiny(), setting())[0].method.train()
    reached: dict[str, frozenset[str]] = {}
    for name, loss in step(method)[1].items():
        player = name.partition("/")[0]
        reached[player] = reached.get(player, frozenset()) | members_reached(method, loss)
    own = {name: frozenset({name}) for name in ("student1", "student2", "fusion", "carrier_student2", "carrier_leader")}
    assert reached == {**own, "leader": frozenset({"leader", "decoder"})}


def test_lent_carriers_stay_as_they_are_and_see_the_statistics_of_the_step_before() -> None:
    method, known = made()
    carrier = method.members["carrier_student2"]
    before = {name: value.clone() for name, value in carrier.state_dict().items()}
    seen = method.see(batch(), NOW, known=known)
    loss = method(seen, frozenset({"student2/carried-stage1"}))["student2/carried-stage1"]
    assert all(torch.equal(value, before[name]) for name, value in carrier.state_dict().items())
    assert all(part.training for part in carrier.modules())
    losses(method, known)  # every term: now the carrier trains
    moved = [name for name, value in carrier.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == [f"blocks.{i}.1.{what}" for i in (0, 1)
                     for what in ("running_mean", "running_var", "num_batches_tracked")]
    assert carrier.blocks[0][1].num_batches_tracked == 1
    assert losses(method, known)["student2/carried-stage1"] != loss


def test_the_diversity_of_a_single_image_is_that_of_specs() -> None:
    """4 x 4 places: the 5 fainter ones are kept, the fifth of them at N / 2, the others turned over."""
    method, known = made()
    maps = torch.zeros(8, 16, 4, 4, dtype=torch.float64)
    maps[:, 0] = torch.arange(1, 17, dtype=torch.float64).sqrt().view(4, 4)  # A = k / 16
    known["student1"]["stage3"] = maps
    a = torch.arange(1, 17, dtype=torch.float64) / 16
    n = a.norm()
    target = torch.cat([a[:4] / n, n[None] / 2, n - a[5:] / n])
    own = attention(known["student2"]["stage3"])
    expected = ((own / length(own)).flatten(1) - target).pow(2).mean()
    close(losses(method, known)["student2/diversity"], expected)
    unit, _ = made(diversity_scale="unit")
    target = torch.cat([a[:4] / n, torch.tensor([0.5]).double(), 1 - a[5:] / n])
    close(losses(unit, known)["student2/diversity"],
          ((own / length(own)).flatten(1) - target / target.norm()).pow(2).mean())


# --- switches


def names(**options) -> set[str]:
    """Terms, without those that every form of the method has."""
    method = ffsd(tiny(), setting(), **options)[0].method
    always = {"student1/ce", "student2/ce", "student1/student2", "student2/student1", "leader/ce", "leader/kl"}
    assert always <= set(method.terms)
    return set(method.terms) - always


FUSION = {"fusion/ce", "fusion/kl", "leader/fused", "leader/decoded"}
OF_LEADER = {"leader/carried-stage1", "leader/carried-stage2", "carrier_leader/stage1", "carrier_leader/stage2"}
OF_STUDENTS = {name.replace("leader", "student2") for name in OF_LEADER}
APART = {"student1/apart-student2-stage", "student2/apart-student1-stage"}
ROWS = {
    "whole": ({}, FUSION | OF_LEADER | OF_STUDENTS | {"student2/diversity"}),
    "no fusion": ({"fusion": False}, OF_STUDENTS | {"student2/diversity"}),
    "no self-distillation": ({"self_distillation": "none"}, FUSION | {"student2/diversity"}),
    "of students only": ({"self_distillation": "students"}, FUSION | OF_STUDENTS | {"student2/diversity"}),
    "of the leader only": ({"self_distillation": "leader"}, FUSION | OF_LEADER | {"student2/diversity"}),
    "L2": ({"diverse_by": "l2", "self_distillation": "none"}, FUSION | {f"{n}{i}" for n in APART for i in (1, 2, 3)}),
    "L2 with SD": ({"diverse_by": "l2"}, FUSION | OF_LEADER | OF_STUDENTS | {f"{n}3" for n in APART}),
    "DML + SL": ({"diverse_by": "none"}, FUSION | OF_LEADER),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_papers_ablations_has_its_terms(row: str) -> None:
    options, expected = ROWS[row]
    assert names(**options) == expected


def test_without_fusion_the_mean_of_logits_teaches_the_leader() -> None:
    method, known = made(fusion=False)
    mean = (known["student1"]["logits"] + known["student2"]["logits"]) / 2
    close(players(method, known)["leader"],
          ce(known["leader"]["logits"]) + kl(known["leader"]["logits"], mean, 2.0))


def test_features_as_printed_are_compared_by_themselves() -> None:
    method, known = made(feature_loss="feature")
    own, together = known["leader"], torch.cat([known[name]["stage3"] for name in ("student1", "student2")], dim=1)
    fused = pair(together, method.members["fusion"].fuse)
    target = carried(fused, method.members["carrier_leader"], train=False)
    decoded = pair(own["stage3"], method.members["decoder"].decode)
    found = losses(method, known)
    close(found["leader/fused"], distance(own["stage3"], fused))
    close(found["leader/decoded"], distance(decoded, together))
    close(found["leader/carried-stage2"], distance(own["stage2"], target["stage2"]))


def test_l2_pushes_every_pair_apart_at_every_stage() -> None:
    method, known = made(diverse_by="l2", self_distillation="none", students=3)
    weights, found = weights_of(method), losses(method, known)
    apart = {name: loss for name, loss in found.items() if "apart" in name}
    assert len(apart) == 3 * 2 * 3
    assert all(weights[name] == pytest.approx(-1e-5) for name in apart)
    squares = (known["student3"]["stage2"] - known["student1"]["stage2"]) ** 2
    close(apart["student3/apart-student1-stage2"], squares.sum() / 8)


def test_l2_with_carriers_pushes_shallow_stages_from_what_is_carried_of_the_student_before() -> None:
    method, known = made(diverse_by="l2")
    target = carried(known["student1"]["stage3"], method.members["carrier_student2"], train=False)
    close(losses(method, known)["student2/carried-stage1"], attentions(known["student2"]["stage1"], target["stage1"]))
    assert weights_of(method)["student2/carried-stage1"] == pytest.approx(-1e-5)


@pytest.mark.parametrize("count", [1, 6])
def test_any_number_of_students(count: int) -> None:
    method = ffsd(tiny(), setting(), students=count)[0].method
    mutual = [name for name in method.terms if name.startswith("student1/student")]
    assert len(mutual) == count - 1
    assert all(weights_of(method)[name] == pytest.approx(1 / (count - 1)) for name in mutual)
    assert sum(name.startswith("carrier_") for name in method.members) == count
    assert step(method)[2]["decoder.maps"].shape == (8, 16 * count, 4, 4)


def test_no_student_is_refused() -> None:
    with pytest.raises(Mistake, match="one common student or more; got students=0"):
        ffsd(tiny(), setting(), students=0)


def test_lambdas_rise_over_five_of_three_hundred_epochs_and_the_rest_is_constant() -> None:
    method = ffsd(tiny(), setting())[0].method
    start, later = weights_of(method, Clock(3, 601, 2)), weights_of(method, Clock(10, 601, 2))
    rising = {name for name in start if "carr" in name or name.endswith(("diversity", "fused", "decoded"))}
    for name in start:
        factor = 2.718281828459045 ** (-5 * (1 - 3 / 10) ** 2) if name in rising else 1
        assert start[name] == pytest.approx(factor * later[name])
    assert later["carrier_leader/stage1"] == 1000
    assert weights_of(ffsd(tiny(), setting(), warm_up=0)[0].method, Clock(0, 601, 2)) == later


# --- sizes: specs/ffsd.md, section 3


@pytest.mark.parametrize(("name", "fusion", "carrier", "decoder"), [
    ("resnet20", 16_228, 23_136, 9_152), ("ffsd_wrn_16_2", 48_740, 92_352, 34_688),
    ("densenet_40_12", 472_516, 1_753_152, None), ("googlenet", 2_224_228, 11_264_576, None)])
def test_parameters_of_the_parts(name: str, fusion: int, carrier: int, decoder: int | None) -> None:
    network = Network(build(name, num_classes=100), name=name, size=(3, 16, 16), statistics=STATISTICS["ffsd"])
    members, _ = lead(network, ["student1.x", "student2.x"], setting())
    assert parameters(members["fusion"]) == fusion
    assert parameters(members["carrier_leader"]) == carrier
    assert decoder is None or parameters(members["decoder"]) == decoder


def test_first_values_of_fusion_are_drawn_as_released() -> None:
    network = Network(build("resnet20", num_classes=100), name="r", size=(3, 32, 32), statistics=STATISTICS["ffsd"])
    wide, _, _, narrow, _, _ = lead(network, ["student1.x", "student2.x"], setting())[0]["fusion"].fuse
    assert wide.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.1)
    assert narrow.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)


def test_a_carrier_fits_stages_that_are_not_a_factor_of_two_apart() -> None:
    carrier = Carrier("student1.stage4", ["stage1", "stage2", "stage3", "stage4"],
                      [(2, 12, 12), (4, 8, 8), (8, 4, 4), (8, 4, 4)])
    shapes = {stage: tuple(x.shape[1:]) for stage, x in carrier.carry(torch.rand(2, 8, 4, 4)).items()}
    assert shapes == {"stage3": (8, 4, 4), "stage2": (4, 8, 8), "stage1": (2, 12, 12)}


# --- running


def test_only_the_leader_ships_and_it_is_plain() -> None:
    student = tiny()
    method = ffsd(student, setting())[0].method
    assert method.student() is student
    plain = NETS["cnn"]()
    plain.load_state_dict(method.student().deployed().state_dict())


def test_carriers_have_adam_and_the_fusion_its_own_decay(tmp_path: Path) -> None:
    run = trainer(ffsd(tiny(), setting()), tmp_path, epochs=0.5)
    run.fit()
    kinds = {group["owner"]: (type(part).__name__, group["weight_decay"])
             for part in run.optimizer.parts for group in part.param_groups}
    assert kinds["carrier_leader"] == kinds["carrier_student2"] == ("Adam", 1e-4)
    assert kinds["fusion"] == ("SGD", 1e-5)
    assert kinds["leader"] == kinds["student1"] == kinds["decoder"] == ("SGD", 5e-4)


class StopsAt(Trainer):
    """Asked to stop after its third step."""

    def _save_if_due(self) -> None:
        self.interrupts.asked = self.clock.step == 3
        super()._save_if_due()


def test_resumes_bit_for_bit_with_every_optimizer(tmp_path: Path) -> None:
    def stages() -> list[Stage]:
        with torch.random.fork_rng():
            torch.manual_seed(2)
            return ffsd(tiny(), setting())

    whole = trainer(stages(), tmp_path / "whole", epochs=2)
    whole.fit()
    with pytest.raises(Stopped):
        trainer(stages(), tmp_path / "parts", epochs=2, kind=StopsAt).fit()
    resumed = trainer(stages(), tmp_path / "parts", epochs=2)
    resumed.fit()
    assert len(whole.optimizer.parts) == 2
    torch.testing.assert_close(resumed.method.state_dict(), whole.method.state_dict(), rtol=0, atol=0)
    for one, other in zip(resumed.optimizer.parts, whole.optimizer.parts, strict=True):
        torch.testing.assert_close(one.state_dict()["state"], other.state_dict()["state"], rtol=0, atol=0)
