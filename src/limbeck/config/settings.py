"""Typed settings, section by section: names, types, defaults and what they are for."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_Beta = Annotated[float, Field(ge=0, lt=1)]
_Side = Annotated[int, Field(gt=0)]
_Factor = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """A frozen section of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Which images, and how they are read and augmented."""

    source: str = Field(description="digits, a folder of images by class, hf:NAME or hf:FOLDER, packed:FOLDER, "
                                    "cifar10:FOLDER, cifar100:FOLDER")
    task: Literal["auto", "classification", "segmentation", "depth"] = Field(
        "auto", description="auto: what the source's targets are")
    size: _Side | tuple[_Side, _Side] | None = Field(
        None, description="resize every image to this many pixels a side, or, for dense tasks, its shorter side, or to "
                          "(height, width); None keeps theirs. Dense scores are of maps of this size")
    crop: _Side | tuple[_Side, _Side] | None = Field(
        None, description="dense tasks: side, or height and width, of the window that training sees; None: all")
    classes: int | None = Field(None, gt=1, description="keep only the first so many classes")
    per_class: int | None = Field(None, gt=0, description="keep only the first so many training images of each class")
    augment: Literal["auto", "crop-flip", "crop", "resized-crop", "none"] = Field(
        "auto", description="auto: crop for digits, crop-flip for small images, resized-crop for large ones; for dense "
                            "tasks scale, rotate and jitter, a crop where there is one, and a mirror")
    scale: tuple[_Factor, _Factor] | None = Field(
        None, description="dense tasks: least and greatest random scale; None: 0.7 to 2.1 for segmentation, 1 to 1.5 "
                          "for depth, which it divides")
    rotate: float | None = Field(None, ge=0, le=180, description="dense tasks: random turn, in degrees at most; None: "
                                                                 "0 for segmentation, 5 for depth")
    jitter: float | None = Field(None, ge=0, le=1, description="dense tasks: random change of brightness, contrast and "
                                                               "saturation; None: 0 for segmentation, 0.4 for depth")
    padding: int | None = Field(None, ge=0, description="pixels added around before the crop; None: an eighth of the "
                                                        "side")
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    rand_augment: float | None = Field(None, ge=0, le=10, description="magnitude of RandAugment behind the crop, 9 in "
                                                                      "DeiT; None for none")
    erase: float = Field(0.0, ge=0, le=1, description="part of the training images of which a box is erased")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup of training batches; 0 for none")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix of training batches; 0 for none")
    mix_probability: float = Field(1.0, ge=0, le=1, description="of a training batch to be mixed, where one is on")
    mix_switch: float = Field(0.5, ge=0, le=1, description="share of CutMix where both are on")
    in_memory: bool | None = Field(None, description="hold decoded images as uint8; None: where they fit in 4 GiB")
    keep_decoded: bool = Field(True, description="keep decoded images in limbeck's cache folder for the next run")
    workers: int = Field(2, ge=0, description="processes that decode images which are not held in memory")
    subset: str | None = Field(None, description="configuration of a hub data set that has several")
    image_column: str | None = Field(None, description="column of a hub data set; None finds it")
    label_column: str | None = Field(None, description="column of a hub data set: classes, label maps or depth; None "
                                                       "finds it")
    void: int | None = Field(None, ge=0, le=255, description="number in label maps that does not count, beside 255 and "
                                                             "classes named void")
    class_names: tuple[str, ...] | None = Field(
        None, description="names of the numbers in label maps, from 0 on; None: those of the source, of its "
                          "classes.txt, or the numbers that it holds")
    depth_unit: float | None = Field(None, gt=0, description="metres per count of depth; None: 0.001 for whole "
                                                             "numbers, 1 for floats")
    sparse_depth: int = Field(0, ge=0, description="depth: so many readings of each image are a fourth input channel")
    skip_unreadable: bool = Field(False, description="leave out images that cannot be decoded, and count them")


class NetworkSettings(Settings):
    """A network: `NAME`, `timm:NAME`, `torchvision:NAME`, `py:module:factory` or a run's folder, then `@weights`."""

    name: str
    weights: str | None = Field(None, description="a checkpoint's path, or `pretrained` for the source's own")
    statistics: str | tuple[tuple[float, ...], tuple[float, ...]] | None = Field(
        None, description="input mean and std: data, imagenet, cifar100, reviewkd, ffsd, identity, or the numbers; "
                          "None: those of the source, of the weights, or of the data")
    size: int | None = Field(None, gt=0, description="resize this network's images to so many pixels a side")
    classes: dict[str, str] | str | None = Field(
        None, description="of a finished network, where names differ: data's name -> its name, a YAML file of such "
                          "lines, or by-order; None: by name")

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Names that YAML reads as numbers are names."""
        return {str(key): str(name) for key, name in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """Read `NAME@WEIGHTS`."""
        if isinstance(value, str):
            name, _, weights = value.partition("@")
            return {"name": name, "weights": weights or None}
        return value


class MethodSettings(BaseModel):
    """A method by name, and its own options, which its function's signature defines."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "kd"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """What was set of the method's own options."""
        return dict(self.model_extra or {})


class ScheduleSettings(Settings):
    """How the learning rate goes over the run, all in fractions of its length."""

    kind: Literal["steps", "cosine", "poly", "constant"] = "steps"
    drops: tuple[float, ...] = Field((0.625, 0.75, 0.875),
                                     description="where `steps` drops: 150, 180, 210 of 240 epochs")
    factor: float = Field(0.1, gt=0, description="what a drop multiplies the rate with")
    power: float = Field(0.9, gt=0, description="of `poly`, which falls as (1 - part of the run that is done)^power")
    warm_up: float = Field(0.0, ge=0, lt=1, description="part of the run in which the rate rises in a line from 0")


class OptimizerSettings(Settings):
    """Who steps the parameters, and how far."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: float = Field(5e-4, ge=0)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0; got momentum 0. Set one, or turn nesterov off")
        return self
    schedule: ScheduleSettings | None = Field(None, description="of a single member; None: the run's")


class TrainingSettings(Settings):
    """How long, in what pieces, and how exactly."""

    epochs: float = Field(240, gt=0)
    batch_size: int = Field(64, gt=0, description="images in a step, over all processes together")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", description="auto: bf16 on GPUs and CPUs that multiply it in hardware; float32 is full float32 "
                            "everywhere")
    tf32: bool = Field(True, description="convolutions outside bf16 in TF32 on a GPU; never with precision float32")
    channels_last: bool = Field(True, description="keep maps with channels innermost: faster convolutions")
    fold_teachers: bool = Field(True, description="in bf16, fold finished networks' batch norms into the convolutions "
                                                  "before them and round their weights ahead")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="part of each label that the supervised loss spreads "
                                                                 "evenly over all classes")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the student, scored beside")
    ema_warm_up: bool = Field(True, description="weigh early steps more: decay at most (1 + step) / (10 + step)")
    deploy_ema: bool = Field(False, description="ship the moving average in place of the student")
    fused_optimizer: bool = Field(True, description="step all parameters in one kernel on a GPU")
    compile: bool | Literal["auto"] = Field(
        "auto", description="on or off: compile networks and connectors; auto: on a GPU")
    compile_backend: str | None = Field(None, description="of torch.compile, such as aot_eager; None: inductor")
    cuda_graphs: bool = Field(True, description="compiled passes as CUDA graphs, where steps are simple enough")
    checkpoint_activations: bool = Field(False, description="compute activations of learning networks again for the "
                                                            "backward pass, to save memory")
    accumulate: int = Field(1, gt=0, description="compute each step's batch in so many pieces, to save memory; batch "
                                                 "norm and relations between images then see a piece")
    clip_gradients: float | None = Field(None, gt=0, description="largest norm of all gradients together")
    select: float = Field(0.0, ge=0, lt=1, description="part of the training data held out to choose the best epoch by")
    evaluate_every: int = Field(1, gt=0, description="epochs between two scores")
    checkpoint_minutes: float = Field(5, gt=0)
    deterministic: bool = False
    check_teacher: bool = Field(True, description="refuse a teacher near chance on a sample of the training data")
    teacher_batch_statistics: bool = Field(False, description="frozen networks normalise by the batch, as released "
                                                              "ReviewKD, OFD and DistPro code does")

    @model_validator(mode="after")
    def _average_is_kept(self) -> Self:
        if self.deploy_ema and self.ema is None:
            raise ValueError("deploy_ema ships a moving average; none is kept. Set training.ema, such as 0.999")
        return self


class SearchSettings(Settings):
    """The bi-level search of term weights."""

    epochs: float | None = Field(None, gt=0, description="length of the search; None: a sixth of the run's")
    terms: list[str] | None = Field(None, description="names of the terms that are searched, with * for anything; the "
                                                      "others keep their weights. None: in a blend those of methods "
                                                      "that search, as distpro/*; else all")
    held_out: float = Field(0.2, gt=0, lt=1, description="part of the training data that the weights are learned on")
    held_out_batch: int | None = Field(None, gt=0, description="None: the training batch size")
    held_out_augment: bool = Field(True, description="augment held-out images like training images, as released")
    held_out_mode: Literal["train", "eval"] = Field("train", description="batch norm in the held-out pass")
    estimator: Literal["exact", "forward", "central", "onesided"] = "exact"
    order: Literal["real", "paper", "lagged"] = "real"
    every: int = Field(1, gt=0, description="update the weights every so many steps")
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(0.05, gt=0)
    betas: tuple[_Beta, _Beta] = (0.5, 0.999)
    start: float = Field(1.0, description="initial raw weight")
    clip: bool = Field(False, description="drop terms under process.threshold during the search too")
    refresh: int = Field(5, gt=0, description="with clip, compute all terms again every so many epochs")
    schedule: ScheduleSettings = Field(ScheduleSettings(drops=(0.25, 0.5, 0.75)),
                                       description="rate of the search's student")


class ProcessSettings(Settings):
    """How weights are normalised, scaled, replayed and clipped."""

    file: str | None = Field(None, description="a process file, or the folder of a search run")
    use: Literal["whole", "final", "equal"] = "whole"
    normaliser: Literal["biased-softmax", "softmax", "biased-l1", "l1", "sigmoid"] = "biased-softmax"
    scale: float | None = Field(None, description="factor on the normalised weights; None: the number of terms")
    interpolate: Literal["raw", "weights"] = "raw"
    granularity: Literal["step", "epoch"] = "step"
    threshold: float | None = Field(0.5, description="raw weights at or below it are clipped; null clips none")
    clip: Literal["mask", "renormalise", "zero", "floor"] = "mask"
    warp: Literal["straight", "drops"] = Field("straight", description="drops: the search's rate drops onto this run's")
    unmatched: Literal["refuse", "drop"] = Field(
        "refuse", description="terms that the file and the method do not share")


class CacheSettings(Settings):
    """Outputs of frozen networks, stored once and read ever after; see docs/cache.md."""

    folder: str | None = Field(None, description="where; None stores nothing")
    views: int | None = Field(None, gt=0, description="views of an image that are stored and trained on; None: those "
                                                      "of the cache if there is one, else all that there are if they "
                                                      "fit in cache.gib, else as many as fit, of random boxes 20")
    gib: float = Field(8.0, gt=0, description="GiB that the views may take where cache.views does not say how many")
    seed: int = Field(0, description="of the views, where not all are stored; the run's seed decides their order")
    taps: tuple[str, ...] | None = Field(("logits",), description="what is stored; null: all that the method reads")
    precision: Literal["float16", "bf16", "float32"] = Field("float16", description="of what is stored")
    top_k: int | None = Field(None, gt=0, description="store so many of the logits, the largest; None: all")
    tail: Literal["smooth", "renorm"] = Field("smooth", description="with top_k, the other classes share what is left, "
                                                                    "or get nothing")
    temperature: float = Field(1.0, gt=0, description="with top_k, of the distribution that is stored; best the "
                                                      "method's")
    batch_size: int | None = Field(None, gt=0, description="of filling ahead; None: the training batch size")


class RecipeSettings(Settings):
    """Where a recipe comes from, and what its paper reports."""

    about: str = ""
    source: str = ""
    metric: str = "top1"
    paper: float | None = None
    deviation: float | None = None
    pair: str | None = None
    needs: str | None = Field(None, description="what limbeck still lacks to run it")


class Job(Settings):
    """Everything that a run is made of."""

    data: DataSettings
    student: NetworkSettings
    teacher: NetworkSettings | None = None
    networks: dict[str, list[NetworkSettings]] = Field({}, description="further ones, by the method's name for them: "
                                                                      "networks.assistants=[resnet32, resnet14]")
    method: MethodSettings = MethodSettings(name="none")
    optimizer: OptimizerSettings = OptimizerSettings()
    optimizers: dict[str, dict[str, Any]] = Field({}, description="what single members have otherwise, by name: "
                                                                  "optimizers.peer1.lr=0.01")
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    search: SearchSettings = SearchSettings()
    process: ProcessSettings = ProcessSettings()
    cache: CacheSettings = CacheSettings()
    seed: int = 0
    recipe: RecipeSettings = RecipeSettings()

    @field_validator("data", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("cache", mode="before")
    @classmethod
    def _from_folder(cls, value: Any) -> Any:
        return {"folder": value} if isinstance(value, str) else value
