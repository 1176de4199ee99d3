"""One row a method: how to build it on tiny networks, and whom each of its terms pulls.

Generic tests in this folder run every row; a new method is tested by adding its row here.
"""

from __future__ import annotations

from limbeck.contract.trial import CLASSES, NETS, SIZE, Trial, batch, built, split, stages, tiny, trainer

__all__ = ["CLASSES", "NETS", "ROWS", "SIZE", "Row", "batch", "built", "split", "stages", "tiny", "trainer"]

Row = Trial

STUDENT = frozenset({"student"})
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
    Row("distpro", pulls={"ce": STUDENT, "t": STUDENT}),
    Row("distpro", {"space": "official10", "kl": 1.0}, {"ce": STUDENT, "t": STUDENT, "kl": STUDENT}),
    Row("distpro", {"space": "imagenet15"}, {"ce": STUDENT, "t": STUDENT}),
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
    Row("slkd", {"form": "sequential", "self_teachers": 1}, {"peer1/": frozenset({"peer1"})}, teacher_width=8),
    Row("slkd", {"form": "sequential"}, {"ce": STUDENT, "student/": STUDENT}, stage=1),
    Row("l2tww", pulls={"ce": STUDENT, "stage": STUDENT}, companion=True),
    Row("l2tww", pulls={"ce": STUDENT, "stage": STUDENT}, networks=("vit", "cnn"), companion=True),
]
