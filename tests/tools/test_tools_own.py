"""A loss of one's own: the method that is made of it, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import limbeck
from limbeck.config import NetworkSettings
from limbeck.contract.steps import CLOCK, images_for, weighed
from limbeck.contract.trial import Trial, built
from limbeck.errors import Mistake
from limbeck.losses import soft_kl
from limbeck.sources import check_network, untrained
from limbeck.wiring import function, options

Own = Callable[..., str]

MSE = """
    @limbeck.loss({})
    def own(student, teacher, *, power: float = 2.0):
        return (student - teacher).abs().pow(power).mean()
"""


def test_the_function_stays_what_it_is() -> None:
    def plain(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).mean()

    declared = limbeck.loss(student="pooled")(plain)
    assert declared is plain
    assert declared(torch.ones(2), torch.zeros(2)) == 1


def test_importing_limbeck_does_not_import_torch() -> None:
    code = "import sys, limbeck; assert 'torch' not in sys.modules; assert 'loss' in limbeck.__all__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_limbeck_has_nothing_else_that_comes_late() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lose'"):
        limbeck.lose  # noqa: B018


def test_the_total_is_the_formula(own: Own) -> None:
    place = own("""
        @limbeck.loss(student="pooled", connect="1x1 conv", weight=3.0, ce=0.5, labelled=True)
        def own(student, teacher, targets, *, power: float = 2.0):
            return ((student - teacher).abs().pow(power).mean(1) * (1 + targets)).mean()
    """)
    method = built(Trial(place, {"power": 1.5})).double()
    method.frozen["teacher"].double()
    images = images_for(method)
    seen = method.see(type(images)(images.images.double(), images.targets, images.index), CLOCK)
    total = weighed(method, method(seen, frozenset(method.terms)))
    connect = method.terms["own"].connect
    apart = F.linear(seen["student.pooled"], connect.weight, connect.bias) - seen["teacher.pooled"]
    plain = ((apart.abs() ** 1.5).mean(1) * (1 + images.targets)).mean()
    expected = 0.5 * F.cross_entropy(seen["student.logits"], images.targets) + 3 * plain
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    assert type(connect) is nn.Linear
    assert connect.weight.shape == (24, 16)


@pytest.mark.parametrize(("taps", "networks", "terms"), [
    ('student="pooled"', ("cnn", "cnn"), {"own": ("pooled", "pooled")}),
    ('student="stage3", teacher="stage2.pre"', ("cnn", "cnn"), {"own": ("stage3", "stage2.pre")}),
    ('student=["stem", "stage3.pre"], teacher=["stage1", "stage3.pre"]', ("cnn", "cnn"),
     {"stem>stage1": ("stem", "stage1"), "stage3-pre": ("stage3.pre", "stage3.pre")}),
    ('student="stages"', ("cnn", "cnn"), {f"stage{i}": (f"stage{i}", f"stage{i}") for i in (1, 2, 3)}),
    ('student="stages.pre", teacher="stages"', ("cnn", "cnn"),
     {f"stage{i}-pre>stage{i}": (f"stage{i}.pre", f"stage{i}") for i in (1, 2, 3)}),
    ('student="stages"', ("vit", "cnn"), {
        "stage1": ("stage1", "stage1"), "stage3>stage2": ("stage3", "stage2"), "stage4>stage3": ("stage4", "stage3")}),
])
def test_a_term_a_pair_of_taps(taps: str, networks: tuple[str, str], terms: dict, own: Own) -> None:
    method = built(Trial(own(MSE.format(taps + ', connect="1x1 conv"')), networks=networks))
    found = {name: term.reads for name, term in method.terms.items() if name != "ce"}
    assert found == {name: (f"student.{a}", f"teacher.{b}") for name, (a, b) in terms.items()}
    assert all(loss.isfinite() for loss in method(method.see(images_for(method), CLOCK), frozenset(terms)).values())


@pytest.mark.parametrize(("taps", "networks", "shapes", "parameters"), [
    ('student="stage3"', ("cnn", "cnn"), ((8, 24, 4, 4), (8, 24, 4, 4)), 16 * 24 + 24),
    ('student="stage3", teacher="stage1"', ("cnn", "cnn"), ((8, 12, 16, 16), (8, 12, 16, 16)), 16 * 12 + 12),
    ('student="stage3", teacher="pooled"', ("cnn", "cnn"), ((8, 24, 1, 1), (8, 24, 1, 1)), 16 * 24 + 24),
    ('student="stage4", teacher="stage1"', ("vit", "cnn"), ((8, 12, 16, 16), (8, 12, 16, 16)), 8 * 12 + 12),
    ('student="pooled"', ("cnn", "vit"), ((8, 12), (8, 12)), 16 * 12 + 12),
    ('student="cls", teacher="pooled"', ("vit", "cnn"), ((8, 24), (8, 24)), 8 * 24 + 24),
    ('student="stage2:cls", teacher="pooled"', ("vit", "cnn"), ((8, 24), (8, 24)), 8 * 24 + 24),
    ('student="tokens", teacher="stage3"', ("vit", "cnn"), ((8, 24, 4, 4), (8, 24, 4, 4)), 8 * 24 + 24),
])
def test_the_connector_sizes_itself(taps: str, networks: tuple, shapes: tuple, parameters: int, own: Own) -> None:
    method = built(Trial(own(MSE.format(taps + ', connect="1x1 conv"')), networks=networks))
    term = method.terms["own"]
    assert tuple(tuple(side.shape) for side in term.sides(method.see(images_for(method), CLOCK))) == shapes
    assert sum(p.numel() for p in term.parameters()) == parameters
    assert term.owner == "student"


def test_without_a_connector_tokens_come_as_maps(own: Own) -> None:
    method = built(Trial(own("""
        @limbeck.loss(student="stage3")
        def own(student, teacher):
            assert student.shape == (8, 16, 4, 4) and teacher.shape == (8, 12, 4, 4)
            return student.mean()
    """), networks=("cnn", "vit")))
    method(method.see(images_for(method), CLOCK), frozenset({"own"}))
    assert not list(method.terms["own"].parameters())


def test_a_connector_of_ones_own(own: Own) -> None:
    place = own("""
        def connect(student, teacher):
            return nn.Linear(student[0], teacher[0], bias=False)

        @limbeck.loss(student="pooled", connect=connect)
        def own(student, teacher):
            return F.mse_loss(student, teacher)
    """)
    assert sum(p.numel() for p in built(Trial(place)).terms["own"].parameters()) == 16 * 24


def test_it_blends_and_is_called_by_its_short_name(own: Own) -> None:
    place = own(MSE.format('student="logits"'))
    method = built(Trial(f"{place}+kd", {"own": {"power": 1.0, "weight": 2.0}, "kd": {"temperature": 3.0}}))
    assert method.process.names == ("ce", "own/own", "kd/kl")
    assert method.process.weights(CLOCK).tolist() == pytest.approx([1.0, 2.0, 0.9])
    seen = method.see(images_for(method), CLOCK)
    losses = method(seen, frozenset(method.terms))
    sides = seen["student.logits"], seen["teacher.logits"]
    torch.testing.assert_close(losses["own/own"], (sides[0] - sides[1]).abs().mean())
    torch.testing.assert_close(losses["kd/kl"], soft_kl(*sides, temperature=3.0))


def test_a_module_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: Own) -> None:
    own(MSE.format(""))
    (tmp_path / "mine.py").rename(tmp_path / "own_module_for_this_test.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert options("own_module_for_this_test:own", {"power": 3}) == {"power": 3.0}


def test_a_file_imports_what_lies_beside_it(tmp_path: Path, own: Own) -> None:
    (tmp_path / "beside_this_test.py").write_text("HALF = 0.5\n")
    place = own("""
        from beside_this_test import HALF

        @limbeck.loss(weight=HALF)
        def own(student, teacher):
            return student.mean()
    """)
    assert built(Trial(place)).process.weights(CLOCK).tolist() == [1.0, 0.5]
    assert str(tmp_path) not in sys.path


def test_a_whole_method_of_ones_own(own: Own) -> None:
    place = own("""
        from limbeck.methods.kd import kd

        def own(student, teacher, setting, *, strength: float = 0.5):
            return kd(student, teacher, setting, ce=1 - strength, kl=strength)
    """)
    assert options(place, {"strength": 0.25}) == {"strength": 0.25}
    assert built(Trial(place, {"strength": 0.25})).process.weights(CLOCK).tolist() == [0.75, 0.25]


def test_it_trains_from_the_command_line(limbeck: Callable[..., int], own: Own, tmp_path: Path) -> None:
    place = own(MSE.format('student="stages", connect="1x1 conv"'))
    words = ["distill", "--run", tmp_path / "run", "--data", "digits", "--student", "digits_small", "--teacher",
             "digits_large", "--method", place, "--epochs", "1", "--device", "cpu", "--quiet", "--set",
             "method.power=1", "--set", "data.classes=2", "--set", "data.per_class=20", "--set",
             "training.check_teacher=false"]
    assert limbeck(*words) == 0
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_network_may_lie_in_a_file_too(own: Own) -> None:
    place = own("""
        def own(num_classes):
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
    """)
    check_network(NetworkSettings(name=f"py:{place}"))
    module = untrained(f"py:{place}", classes=7).module
    assert module[-1].out_features == 7


# --- what is refused


@pytest.mark.parametrize(("text", "told"), [
    ("def own(student, teacher):\n    return 0", "is a plain function. Put @limbeck.loss"),
    ("def owl(student, teacher):\n    return 0", "has no 'own' that can be called; closest: ['owl']"),
    ("own = 3", "has no 'own' that can be called"),
    ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ("def own(:", "SyntaxError"),
    ("@limbeck.loss()\ndef own(student, teacher, targets): ...", "takes (student, teacher, *, options); own takes "
     "['student', 'teacher', 'targets'] before a star"),
    ("@limbeck.loss(labelled=True)\ndef own(student, teacher): ...", "takes (student, teacher, targets, *, options)"),
    ("@limbeck.loss()\ndef own(student, teacher, *, power): ...", "needs a type and a default; own has 'power'"),
    ("@limbeck.loss()\ndef own(student, teacher, *, power=2): ...", "needs a type and a default; own has 'power=2'"),
    ("@limbeck.loss()\ndef own(student, teacher, **more): ...", "needs a type and a default; own has '**more'"),
    ("@limbeck.loss()\ndef own(student, teacher, *, weight: float = 1.0): ...", "'weight' is an option of every loss"),
    ('@limbeck.loss(student="stages", teacher="pooled")\ndef own(student, teacher): ...', "stages for stages; got"),
    ('@limbeck.loss(student=["stem", "pooled"], teacher="pooled")\ndef own(student, teacher): ...',
     "needs a teacher's tap for each of the student's"),
    ('@limbeck.loss(connect="conv")\ndef own(student, teacher): ...', "connect of own is '1x1 conv', a function"),
    ("limbeck.loss(3)", "TypeError"),
])
def test_what_is_no_loss_is_refused_with_what_to_do(text: str, told: str, own: Own) -> None:
    place = own(text)
    with pytest.raises(Mistake) as mistake:
        function(place)
    assert told in str(mistake.value)
    assert "mine.py" in str(mistake.value)


@pytest.mark.parametrize(("name", "told"), [
    ("nowhere/mine.py:own", "there is no file nowhere/mine.py"),
    ("mine.py", "is file.py:name or package.module:name; got 'mine.py'. For example mine.py:my_function"),
    (":own", "is file.py:name or package.module:name; got ':own'"),
    ("nothing_of_this_name:own", "needs a module that can be imported: ModuleNotFoundError"),
])
def test_what_is_not_there_is_told(name: str, told: str) -> None:
    with pytest.raises(Mistake) as mistake:
        function(name)
    assert told in str(mistake.value)


def test_a_file_that_is_nearly_called_so_is_offered(own: Own) -> None:
    with pytest.raises(Mistake, match=r"there is no file .*mime\.py .*closest: \['mine\.py'\]"):
        function(own("").replace("mine.py", "mime.py"))


def test_wrong_options_are_told(own: Own) -> None:
    with pytest.raises(Mistake) as mistake:
        options(own(MSE.format("")), {"powr": 1, "weight": "much"})
    assert "there is no setting powr; closest: ['power']" in str(mistake.value)
    assert "weight = 'much'" in str(mistake.value)


def test_a_wrong_tap_is_told_with_the_nearest(own: Own) -> None:
    with pytest.raises(Mistake, match=r"no layer 'poled'; closest: \['pooled'\]"):
        built(Trial(own(MSE.format('student="poled"'))))


def test_two_of_one_name_do_not_blend(own: Own) -> None:
    with pytest.raises(Mistake, match="every method of a blend needs a name of its own"):
        built(Trial("+".join([own(MSE.format(""))] * 2)))


def test_a_stray_option_of_a_blend_is_told_by_short_names(own: Own) -> None:
    with pytest.raises(Mistake, match=r"Write for example method\.own\.power; the methods are \['own', 'kd'\]"):
        built(Trial(own(MSE.format("")) + "+kd", {"power": 1.0}))
