"""`data:` section: which pictures, and what is done to them before the network sees them."""

from typing import Literal

from pydantic import Field, field_validator

from psanet_tf.config.section import Section


class AugmentationSection(Section):
    scale: tuple[float, float] = Field((0.5, 2.0), description="smallest and largest random scale")
    rotate_degrees: float = Field(10.0, ge=0, le=180, description="largest rotation to either side")
    rotate_probability: float = Field(0.5, ge=0, le=1)
    blur_probability: float = Field(0.5, ge=0, le=1)
    flip_probability: float = Field(0.5, ge=0, le=1)


class DataSection(Section):
    dataset: Literal["ade20k", "voc2012", "cityscapes", "scenes", "custom"] = Field(
        "ade20k", description="layout on disk, class names and colours"
    )
    root: str = Field(description="folder of the dataset, in its owner's layout")
    train_split: str = Field("training", description="the dataset's own name of the split")
    val_split: str = "validation"
    crop_size: tuple[int, int] = Field((465, 465), description="rows and columns of a training crop, 8n+1")
    augmentation: AugmentationSection = AugmentationSection()

    @field_validator("crop_size")
    @classmethod
    def _eight_n_plus_one(cls, crop_size):
        for size in crop_size:
            if size < 9 or (size - 1) % 8:
                nearest = max(9, 8 * round((size - 1) / 8) + 1)
                raise ValueError(f"rows and columns must be 8n+1 and at least 9, got {size}; nearest is {nearest}")
        return crop_size
