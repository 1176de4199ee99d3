"""DeiT by hand, on any transformer with a distillation token, and on timm's without, which are given one."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from methods_tiny import LABELS, NOW, ce, kl, setting, trainer
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.contract.trial import CLASSES, SIZE, batch, tiny
from limbeck.errors import Mistake
from limbeck.members import Network, Statistics
from limbeck.method import Method, Stage
from limbeck.methods.deit import deit
from limbeck.networks.distilled import Distilled

TINY = {"img_size": SIZE[1], "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": CLASSES}


def vit(**options: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **(TINY | options))


def network(module: nn.Module, *, factory: object = None) -> Network:
    return Network(module, name="timm:vit", size=SIZE, statistics=Statistics((0.5,) * 3, (0.25,) * 3), factory=factory)


def losses(method: Method) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Terms' values and what the student computed, in float64."""
    method = method.double()
    for frozen in method.frozen.values():
        frozen.double()
    images = batch()
    seen = method.see(type(images)(images.images.double(), images.targets, images.index), NOW)
    values = method(seen, frozenset(method.terms))
    return values, seen.outputs("student") | {"teacher": seen["teacher.logits"]}


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_each_head_learns_from_its_own(form: str) -> None:
    method = deit(tiny(kind="deit"), tiny(12), setting(), form=form)
    values, seen = losses(method)
    torch.testing.assert_close(values["ce"], ce(seen["logits.class"]))
    own, teacher = seen["logits.distillation"], seen["teacher"]
    hard = -F.log_softmax(own, 1)[torch.arange(8), teacher.argmax(1)].mean()
    expected = hard if form == "hard" else kl(own, teacher, 3)
    torch.testing.assert_close(values["distillation"], expected)
    torch.testing.assert_close(seen["logits"], (seen["logits.class"] + own) / 2)
    assert method.process.weights(NOW).tolist() == [0.5, 0.5]


def test_golden() -> None:
    """By a pocket calculator: class head (2, 0), labels (0, 1); distillation head (1, 3), teacher (4, 1)."""
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 3.0], [1.0, 3.0]], dtype=torch.float64)
    method = deit(tiny(kind="deit"), tiny(12), setting(), ce=0.9, distillation=0.1, form="soft", temperature=2.0)
    hard = deit(tiny(kind="deit"), tiny(12), setting())
    images = type(batch())(torch.zeros(2, *SIZE), torch.tensor([0, 1]), torch.arange(2))
    known = {"student": {"logits.class": logits, "logits.distillation": other},
             "teacher": {"logits": torch.tensor([[4.0, 1.0], [4.0, 1.0]], dtype=torch.float64)}}
    soft = method(method.see(images, NOW, known=known), frozenset(method.terms))
    assert soft["ce"].item() == pytest.approx(1.126928011, abs=1e-8)  # (ln(1 + e^-2) + ln(1 + e^2)) / 2
    assert soft["distillation"].item() == pytest.approx(2.623138400, abs=1e-8)  # 4 KL(s(1.5) || s(-1))
    values = hard(hard.see(images, NOW, known=known), frozenset(hard.terms))
    assert values["distillation"].item() == pytest.approx(2.126928011, abs=1e-8)  # ln(1 + e^2)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 3}, {"global_pool": "avg"}, {"class_token": False,
                                                                                 "global_pool": "avg"}])
def test_a_token_that_says_nothing_leaves_the_transformer_as_it_was(options: dict[str, object]) -> None:
    """Where nobody attends to it, both heads' mean is the mean of what the transformer says and what the head says."""
    plain, x = vit(**options).eval(), torch.randn(2, *SIZE)
    given = Distilled(plain).eval()
    with torch.no_grad():
        for block in plain.blocks:
            block.attn.proj.weight.zero_()
        heard = given.vit.norm(_through(plain, given.token))
        torch.testing.assert_close(given(x), (plain(x) + given.head(heard)) / 2)


def _through(plain: nn.Module, token: Tensor) -> Tensor:
    for block in plain.blocks:
        token = token + block.attn.proj.bias
        token = token + block.mlp(block.norm2(token))
    return token[:, 0].expand(2, -1)


def test_a_token_given_is_timms_distilled_transformer() -> None:
    theirs = timm.create_model("deit_tiny_distilled_patch16_224", **TINY).eval()
    own, state = Distilled(vit()).eval(), theirs.state_dict()
    token, places = state.pop("dist_token"), state.pop("pos_embed")
    head = {key: state.pop(f"head_dist.{key}") for key in ("weight", "bias")}
    own.vit.load_state_dict({**state, "pos_embed": torch.cat([places[:, :1], places[:, 2:]], dim=1)})
    own.head.load_state_dict(head)
    with torch.no_grad():
        own.token.copy_(token + places[:, 1:2])
    x = torch.randn(3, *SIZE)
    torch.testing.assert_close(own(x), theirs(x))
    own.train(), theirs.train()  # without dropout both answer with the mean in training too
    torch.testing.assert_close(own(x), theirs(x))


def test_a_student_without_a_token_is_given_one_and_ships_with_it(tmp_path: Path) -> None:
    student = network(vit(), factory=vit)
    method = deit(student, tiny(12), setting())
    given = method.student()
    assert given.name == "distilled:timm:vit"
    assert given.stages == student.stages == ("stage1", "stage2")
    assert given.layout("stage1").before == 2
    assert isinstance(given.fresh(1).module, Distilled)
    trained = trainer([Stage(method)], tmp_path, epochs=1)
    trained.fit()
    run = trained.run
    run.save_weights(trained.method.student())
    state = load_file(run.folder / "student.safetensors")
    assert state.keys() == Distilled(vit()).state_dict().keys()
    plain = Distilled(vit()).eval()
    plain.load_state_dict(state)
    images = batch().images
    torch.testing.assert_close(plain(given.normalise(images)), trained.method.student().eval().logits(images))


@pytest.mark.parametrize("student", [tiny(), tiny(kind="vit")])
def test_others_are_refused(student: Network) -> None:
    with pytest.raises(Mistake, match="vision transformer of timm that has none; got Tiny"):
        deit(student, tiny(12), setting())
    with pytest.raises(Mistake, match="got VisionTransformerDistilled"):
        Distilled(tiny(kind="deit").module)


def test_labels_reach_the_class_token_alone_and_the_teacher_the_other() -> None:
    method = deit(tiny(kind="deit"), tiny(12), setting())
    assert method.terms["ce"].reads == ("student.logits.class",)
    seen = method.see(batch(), NOW)
    values = method(seen, frozenset(method.terms))
    module = method.student().module
    slopes = torch.autograd.grad(values["ce"], [module.head.weight, module.head_dist.weight], allow_unused=True,
                                 retain_graph=True)
    assert slopes[0].abs().sum() > 0
    assert slopes[1] is None
    slopes = torch.autograd.grad(values["distillation"], [module.head.weight, module.head_dist.weight],
                                 allow_unused=True)
    assert slopes[0] is None
    assert slopes[1].abs().sum() > 0
    assert LABELS is not None
