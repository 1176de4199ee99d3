"""One row a method: how to build it on tiny networks, and whom each of its terms pulls.

Generic tests in this folder run every row; a new method is tested by adding its row here.
"""

from __future__ import annotations

from limbeck.contract.trial import CLASSES, NETS, SIZE, Trial, batch, built, split, stages, tiny, trainer

__all__ = ["CLASSES", "NETS", "ROWS", "SIZE", "Row", "batch", "built", "split", "stages", "tiny", "trainer"]

Row = Trial

STUDENT = frozenset({"student"})
PEERS = {"ce": STUDENT, "student/": STUDENT, "peer1/": frozenset({"peer1"})}
JUDGES = {f"judge_{name}": frozenset({f"judge_{name}"}) for name in ("student", "peer1")}
BRANCHES = {"ce": STUDENT, "student/": STUDENT, "peer1/": frozenset({"student", "peer1"})}
STUDENTS = {f"{name}/": frozenset({name}) for name in ("student1", "student2", "carrier_student2")}
LED = {"leader/decoded": frozenset({"leader", "decoder"}),
       **{f"{name}/": frozenset({name}) for name in ("leader", "fusion", "carrier_leader")}}
LEADER = frozenset({"leader"})


def under(method: str, pulls: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Whom a method's terms pull in a blend."""
    return {f"{method}/{prefix}": whom for prefix, whom in pulls.items()}


ROWS = [
    Row("none", pulls={"ce": STUDENT}),
    Row("kd", pulls={"ce": STUDENT, "kl": STUDENT}),
    Row("at", pulls={"ce": STUDENT, "stage": STUDENT}),
    Row("at", {"mode": "paper"}, {"ce": STUDENT, "stage": STUDENT}, networks=("cnn", "vit")),
    Row("kd+at", pulls={"ce": STUDENT, "kd/": STUDENT, "at/": STUDENT}),
    Row("reviewkd", {"warm_up": 0}, {"ce": STUDENT, "level": frozenset({"student", "review"})}),
    Row("fitnet", pulls={"ce": STUDENT, "hint": STUDENT}),
    Row("fitnet", pulls={"ce": STUDENT, "hint": STUDENT}, networks=("vit", "cnn")),
    Row("fitnet", {"form": "staged"}, {"hint": STUDENT}),
    Row("nst", pulls={"ce": STUDENT, "stage": STUDENT}),
    Row("nst", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("cnn", "vit")),
    Row("vid", pulls={"ce": STUDENT, "stage": STUDENT}),
    Row("vid", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("vit", "cnn")),
    Row("ofd", {"batch_statistics": True}, {"ce": STUDENT, "stage": STUDENT}),
    Row("ofd", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("cnn", "vit")),
    Row("london", pulls={"ce": STUDENT, "stage": frozenset({"student", "connected"})}),
    Row("london", pulls={"ce": STUDENT, "stage": frozenset({"student", "connected"})}, networks=("vit", "cnn")),
    Row("ab", pulls={"stage": STUDENT}),
    Row("ab", {"form": "joint", "kl": 1.0}, {"ce": STUDENT, "stage": STUDENT, "kl": STUDENT}),
    Row("ab", {"form": "joint"}, {"ce": STUDENT, "stage": STUDENT}, networks=("cnn", "vit")),
    Row("ft", pulls={"reconstruction": frozenset({"paraphraser"})}),
    Row("ft", pulls={"ce": STUDENT, "factor": STUDENT}, stage=1),
    Row("ft", {"form": "joint", "mode": "paper"}, {"ce": STUDENT, "factor": STUDENT,
        "reconstruction": frozenset({"paraphraser"})}, networks=("vit", "cnn")),
    Row("fsp", pulls={"stem": STUDENT, "stage": STUDENT}, teacher_width=8),
    Row("fsp", {"form": "joint"}, {"ce": STUDENT, "stem": STUDENT, "stage": STUDENT}, teacher_width=8),
    Row("kdsvd", pulls={"ce": STUDENT, "stage": STUDENT}),
    Row("kdsvd", {"mode": "repdistiller"}, {"ce": STUDENT, "stage": STUDENT}, teacher_width=8),
    Row("kdsvd", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("vit", "cnn")),
    Row("sp", pulls={"ce": STUDENT, "similarity": STUDENT}),
    Row("sp", pulls={"ce": STUDENT, "similarity": STUDENT}, networks=("cnn", "vit")),
    Row("rkd", pulls={"ce": STUDENT, "distance": STUDENT, "angle": STUDENT}),
    Row("pkt", pulls={"ce": STUDENT, "neighbours": STUDENT}),
    Row("cc", pulls={"ce": STUDENT, "correlation": STUDENT}),
    Row("cc", {"mode": "gaussian"}, {"ce": STUDENT, "correlation": STUDENT}, networks=("vit", "cnn")),
    Row("crd", {"negatives": 12}, {"ce": STUDENT, "contrast": frozenset({"student", "embedding"})}),
    Row("kd+crd", {"crd": {"negatives": 12}}, {"ce": STUDENT, "kd/": STUDENT,
        "crd/": frozenset({"student", "embedding"})}, networks=("cnn", "vit")),
    Row("dkd", pulls={"ce": STUDENT, "target": STUDENT, "nontarget": STUDENT}),
    Row("dkd", {"standardised": True, "warm_up": 0}, {"ce": STUDENT, "target": STUDENT, "nontarget": STUDENT}),
    Row("lskd", pulls={"ce": STUDENT, "kl": STUDENT}),
    Row("dist", pulls={"ce": STUDENT, "inter": STUDENT, "intra": STUDENT}),
    Row("mlkd", pulls={"ce": STUDENT, "kl": STUDENT, "class": STUDENT, "batch": STUDENT}),
    Row("mlkd", {"form": "clean", "standardised": True},
        {"ce": STUDENT, "kl": STUDENT, "class": STUDENT, "batch": STUDENT}),
    Row("semckd", pulls={"ce": STUDENT, "kl": STUDENT, "s": frozenset({"student", "attention"})}),
    Row("semckd", pulls={"ce": STUDENT, "kl": STUDENT, "s": frozenset({"student", "attention"})},
        networks=("vit", "cnn")),
    Row("afd_attention", pulls={"ce": STUDENT, "kl": STUDENT, "t": frozenset({"student", "attention"})}),
    Row("afd_attention", pulls={"ce": STUDENT, "kl": STUDENT, "t": frozenset({"student", "attention"})},
        networks=("cnn", "vit")),
    Row("distpro", pulls={"ce": STUDENT, "t": STUDENT}),
    Row("distpro", {"space": "official10", "kl": 1.0}, {"ce": STUDENT, "t": STUDENT, "kl": STUDENT}),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}, networks=("vit", "vit")),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}, networks=("vit", "cnn")),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}, networks=("cnn", "vit")),
    Row("deit", pulls={"ce": STUDENT, "distillation": STUDENT}, networks=("deit", "cnn")),
    Row("deit", {"form": "soft"}, {"ce": STUDENT, "distillation": STUDENT}, networks=("deit", "vit")),
    Row("takd", pulls={"ce": STUDENT, "kl": STUDENT}, stage=1, further={"assistants": (10,)}),
    Row("dgkd", pulls={"ce": STUDENT, "kl/": STUDENT}, stage=1, further={"assistants": (10,)}),
    Row("eskd", pulls={"ce": STUDENT, "kl": STUDENT}),
    Row("rco", pulls={"ce": STUDENT, "kl/": STUDENT}, further={"anchors": (12,)}),
    Row("ban", {"generations": 1}, {"ce": STUDENT, "kl": STUDENT}, stage=1),
    Row("ban", {"generations": 1, "knowledge": "dkpp"}, {"ce": STUDENT, "dkpp": STUDENT}, stage=1),
    Row("slkd", pulls={"ce": STUDENT, "student/": STUDENT, "peer1/": frozenset({"peer1"}),
                       "peer2/": frozenset({"peer2"})}),
    Row("slkd", {"detach": False, "self_teachers": 1}, {"ce": STUDENT, "student/teacher": STUDENT, "student/peers":
        frozenset({"student", "peer1"}), "peer1/": frozenset({"peer1"})}),
    Row("slkd", {"form": "sequential", "self_teachers": 1}, {"peer1/ce": frozenset({"peer1"}), "peer1/":
        frozenset({"peer1"})}, teacher_width=8, deployed="peer1"),
    Row("slkd", {"form": "sequential"}, {"ce": STUDENT, "student/": STUDENT}, stage=1),
    Row("byot", pulls={"ce": STUDENT, "exit1/": frozenset({"student", "exit1"}),
                       "exit2/": frozenset({"student", "exit2"})}),
    Row("byot", {"without": "none", "soft": "kl"}, {"ce": STUDENT, "exit1/": frozenset({"student", "exit1"}),
        "exit2/": frozenset({"student", "exit2"}), "exit3/": frozenset({"student", "exit3"})}, networks=("vit", "cnn")),
    Row("end2", pulls={"spread": STUDENT}, further={"ensemble": (10, 12)}, lr=1e-3),
    Row("dml", pulls=PEERS),
    Row("dml", {"form": "alternating", "copies": 2}, PEERS | {"peer2/": frozenset({"peer2"})}, turns=True),
    Row("dml", pulls=PEERS | {"peer2/": frozenset({"peer2"})}, networks=("vit", "cnn"), further={"peers": (10, 12)}),
    Row("kdcl", pulls=PEERS),
    Row("kdcl", {"target": "naive"}, PEERS, networks=("vit", "cnn"), further={"peers": (10,)}),
    Row("kdcl", {"target": "linear", "copies": 2}, PEERS | {"peer2/": frozenset({"peer2"})}),
    Row("kdcl", {"target": "general"}, PEERS),
    Row("afd", pulls=PEERS | JUDGES, turns=True),
    Row("afd", pulls={"peer1/fools": frozenset({"peer1", "map_peer1"})} | PEERS | JUDGES, networks=("vit", "cnn"),
        further={"peers": (12,)}, turns=True),
    Row("one", pulls=BRANCHES | {"peer2/": frozenset({"student", "peer2"}), "gate/":
        frozenset({"student", "peer1", "peer2", "gate"})}),
    Row("one", {"branches": 2, "target": "others", "divide_trunk": True}, BRANCHES, networks=("vit", "cnn")),
    Row("one", {"branches": 2, "leader": True}, BRANCHES | LED | {"gate/": frozenset({"student", "peer1", "gate"})},
        deployed="leader"),
    Row("okddip", {"copies": 2}, {"ce": STUDENT, "student/": frozenset({"student", "peer1", "peer2"}), "peer1/ce":
        BRANCHES["peer1/"], "peer2/ce": frozenset({"student", "peer2"}), "peer": frozenset({"student", "peer1", "peer2",
        "attention"})}),
    Row("okddip", {"form": "networks", "copies": 2, "detach": True}, {"ce": STUDENT, "student/": STUDENT, "peer1/ce":
        frozenset({"peer1"}), "peer2/ce": frozenset({"peer2"}), "peer": frozenset({"peer1", "peer2", "attention"})}),
    Row("ffl", pulls=BRANCHES | {"fusion/": frozenset({"student", "peer1", "fusion"})}),
    Row("ffl", pulls=PEERS | {"fusion/": frozenset({"student", "peer1", "fusion"})}, networks=("vit", "cnn"),
        further={"peers": (10,)}),
    Row("ffsd", pulls=STUDENTS | LED, deployed="leader"),
    Row("ffsd", {"students": 3}, STUDENTS | LED | {"student3/": frozenset({"student3"}), "carrier_student3/":
        frozenset({"carrier_student3"})}, networks=("vit", "cnn"), deployed="leader"),
    Row("ffsd", {"diverse_by": "l2", "feature_loss": "feature", "self_distillation": "students"}, STUDENTS | LED,
        deployed="leader"),
    Row("kd+dml", pulls={"ce": STUDENT, "kd/": STUDENT, **under("dml", PEERS)}),
    Row("kd+dml", {"dml": {"form": "alternating"}}, {"ce": STUDENT, "kd/": STUDENT, **under("dml", PEERS)}, turns=True),
    Row("kd+afd", pulls={"ce": STUDENT, "kd/": STUDENT, **under("afd", PEERS | JUDGES)}, turns=True),
    Row("kd+ffsd", pulls={"ce": LEADER, "kd/": LEADER, **under("ffsd", STUDENTS | LED)}, deployed="leader"),
    Row("at+ffsd", pulls={"ce": LEADER, "at/": LEADER, **under("ffsd", STUDENTS | LED)}, networks=("cnn", "vit"),
        deployed="leader"),
    Row("reviewkd+ffsd", pulls={"ce": LEADER, "reviewkd/": LEADER | {"review"}, **under("ffsd", STUDENTS | LED)},
        deployed="leader"),
    Row("l2tww", pulls={"ce": STUDENT, "stage": STUDENT}, companion=True),
    Row("l2tww", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("vit", "cnn"), companion=True),
    Row("kd", pulls={"ce": STUDENT, "kl": STUDENT}, task="segmentation"),
    Row("structured", pulls={"ce": STUDENT, "pixel": STUDENT, "pair": STUDENT}, task="segmentation"),
    Row("ifvd", pulls={"ce": STUDENT, "variation": STUDENT, "kl": STUDENT}, task="segmentation"),
    Row("cwd", {"weight": 30.0}, {"ce": STUDENT, "logits": STUDENT}, task="segmentation"),
    Row("cwd", {"form": "feature", "everywhere": True}, {"ce": STUDENT, "feature": STUDENT}, task="segmentation"),
    Row("reviewkd", {"warm_up": 0}, {"ce": STUDENT, "level": frozenset({"student", "review"})}, task="segmentation"),
    Row("distpro", pulls={"ce": STUDENT, "t": STUDENT}, task="segmentation"),
    Row("ifvd+distpro", {"distpro": {"teacher_taps": ["psp"]}}, {"ce": STUDENT, "ifvd/": STUDENT, "distpro/": STUDENT},
        task="segmentation"),
    Row("kd", pulls={"ce": STUDENT, "l1": STUDENT}, task="depth"),
    Row("reviewkd", {"warm_up": 0}, {"ce": STUDENT, "level": frozenset({"student", "review"})}, task="depth"),
    Row("distpro", {"kl": 1.0}, {"ce": STUDENT, "t": STUDENT, "kl": STUDENT}, task="depth"),
]
