"""Typed settings of every verb: a YAML file, then flags, then `--set section.key=value`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A frozen section of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Settings):
    """Which images, and how they are read and augmented."""

    source: str = Field(description="digits, a folder of images by class, hf:NAME or hf:FOLDER, cifar10:FOLDER, "
                                    "cifar100:FOLDER")
    size: int | None = Field(None, gt=0, description="resize every image to this many pixels a side; None keeps theirs")
    classes: int | None = Field(None, gt=1, description="keep only the first so many classes")
    per_class: int | None = Field(None, gt=0, description="keep only the first so many training images of each class")
    augment: Literal["auto", "crop-flip", "crop", "resized-crop", "none"] = Field(
        "auto", description="auto: crop for digits, crop-flip for small images, resized-crop for large ones")
    padding: int | None = Field(None, ge=0, description="pixels added around before the crop; None: an eighth of the side")
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    in_memory: bool | None = Field(None, description="hold decoded images as uint8; None: where they fit in 4 GiB")
    workers: int = Field(2, ge=0, description="processes that decode images which are not held in memory")
    image_column: str | None = Field(None, description="column of a hub data set; None finds it")
    label_column: str | None = Field(None, description="column of a hub data set; None finds it")
    skip_unreadable: bool = Field(False, description="leave out images that cannot be decoded, and count them")
