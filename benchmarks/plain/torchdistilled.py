"""The same jobs by torchdistill (from PyPI, installed by hand), configured as its own examples are.

Its distillation box owns the loader, the forward passes with hooks, the losses and the step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, RandomSampler

from plain.data import SmallImages

Config = dict[str, Any]
_FORWARD = {"forward_proc": "forward_batch_only"}


class Pairs(Dataset[Any]):
    """Image and label alone: torchdistill wraps the data set itself."""

    def __init__(self, images: SmallImages):
        self.images, self.classes, self.targets = images, images.classes, images.targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self.images[place][:2]


class Box:
    """A distillation box whose epochs last so many steps."""

    def __init__(self, config: Config, teacher: nn.Module, student: nn.Module, images: SmallImages, batch: int,
                 steps: int):
        logging.disable(logging.WARNING)
        from torchdistill.core.distillation import DistillationBox
        from torchdistill.losses import mid_level, util  # noqa: F401

        data = {"dataset_id": "train", "kwargs": {"batch_size": batch, "num_workers": 2, "persistent_workers": True},
                "sampler": {"class_or_func": RandomSampler, "kwargs": {"num_samples": batch * steps}},
                **config.pop("data", {})}
        optimizer = {"key": "SGD", "kwargs": {"lr": 1e-5, "momentum": 0.9, "weight_decay": 5e-4}}
        self.box = DistillationBox(teacher, student, {"train": Pairs(images)},
                                   {"num_epochs": 1, "train_data_loader": data, "optimizer": optimizer, **config},
                                   torch.device("cpu"), None, False, 1.0)
        logging.disable(logging.NOTSET)

    def epoch(self) -> None:
        """As its example scripts train."""
        box = self.box
        box.pre_epoch_process(epoch=0)
        for images, targets, more in box.train_data_loader:
            loss = box.forward_process(images, targets, more)
            box.post_forward_process(loss=loss)


def _sum(*terms: tuple[float, str, Config]) -> Config:
    """A weighted sum of losses, with cross-entropy of the labels."""
    ce = {"criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
          "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": {
              "input": {"is_from_teacher": False, "module_path": ".", "io": "output"}, "target": {"uses_label": True}}},
          "weight": 1.0}
    own = {f"{key}{number}": {"criterion": {"key": key, "kwargs": options}, "weight": weight}
           for number, (weight, key, options) in enumerate(terms)}
    return {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"ce": ce, **own}}}


def kd(widths: tuple[int, int], images: int) -> Config:
    """0.1 CE + 0.9 T^2 KL, T = 4: its KDLoss holds both."""
    options = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
               "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.1, "reduction": "batchmean"}
    loss = {"criterion": {"key": "KDLoss", "kwargs": options}, "weight": 1.0}
    return {"teacher": {"requires_grad": False, **_FORWARD}, "student": _FORWARD,
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": loss}}}}


def reviewkd(widths: tuple[int, int], images: int) -> Config:
    """CE + 5 sum of HCL, over three stages and the pooled feature."""
    own, theirs = ([width // 4, width // 2, width, width] for width in widths)
    levels = ["layer1", "layer2", "layer3", "pool"]
    sources = [f"{level}.4.relu_last" for level in levels[:-1]] + ["pool"]    # a 32x4 stage has five blocks
    fusions = [{"io": "output", "path": f"student_model.{level}",
                "kwargs": {"in_channels": narrow, "mid_channels": own[-1], "out_channels": wide}}
               for level, narrow, wide in zip(levels, own, theirs, strict=True)]
    terms = [(5.0, "HierarchicalContextLoss", {
        "student_module_path": f"abf_modules.{len(sources) - 1 - level}", "student_module_io": "output",
        "teacher_module_path": path, "teacher_module_io": "output" if path == "pool" else "input"})
        for level, path in enumerate(sources)]
    return {
        "teacher": {"requires_grad": False, **_FORWARD,
                    "forward_hook": {"input": sources[:-1], "output": sources[-1:]}},
        "student": {**_FORWARD, "auxiliary_model_wrapper": {"key": "Student4KnowledgeReview",
                                                "kwargs": {"abfs": fusions, "sizes": [1, 8, 16, 32]}},
                    "forward_hook": {"input": [], "output": [f["path"] for f in fusions]
                                     + [f"abf_modules.{level}" for level in range(len(sources))]}},
        "criterion": _sum(*terms)}


def crd(widths: tuple[int, int], images: int, negatives: int) -> Config:
    """CE + 0.8 contrast of embeddings of the pooled features."""
    def side(width: int) -> Config:
        return {"forward_proc": "forward_batch_supp_dict",
                "forward_hook": {"input": ["empty"], "output": ["normalizer", "model.flatten"]},
                "auxiliary_model_wrapper": {"key": "Linear4CRD", "kwargs": {
                    "input_module_path": "model.flatten", "linear_kwargs": {"in_features": width,
                                                                            "out_features": 128}}}}

    options = {"teacher_norm_module_path": "normalizer", "student_norm_module_path": "normalizer",
               "student_empty_module_path": "empty", "input_size": 128, "output_size": images,
               "num_negative_samples": negatives, "num_samples": images}
    wrapper = {"key": "CRDDatasetWrapper", "kwargs": {"num_negative_samples": negatives, "mode": "exact", "ratio": 1.0}}
    return {"data": {"dataset_wrapper": wrapper}, "teacher": side(widths[1]), "student": side(widths[0]),
            "criterion": _sum((0.8, "CRDLoss", options))}


JOBS: dict[str, Callable[..., Config]] = {"kd": kd, "reviewkd": reviewkd, "crd": crd}
"""What torchdistill has of the compared methods: no DKD, FFSD or DistPro."""
