"""`data:` section: which pictures, and what is done to them before the network sees them."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from psanet_tf.config.section import Section

_SPLITS = {
    "ade20k": ("training", "validation"),
    "scenes": ("training", "validation"),
    "voc2012": ("train_aug", "val"),
    "cityscapes": ("train", "val"),
    "custom": ("train", "val"),
}
_CUSTOM_KEYS = ("class_names", "class_colors", "list_file", "image_folder", "label_folder")


def _splits(values):
    # Without a valid dataset the section is refused anyway.
    return _SPLITS[values.get("dataset", "ade20k")]


class AugmentationSection(Section):
    scale: tuple[float, float] = Field((0.5, 2.0), description="smallest and largest random scale")
    rotate_degrees: float = Field(10.0, ge=0, le=180, description="largest rotation to either side")
    rotate_probability: float = Field(0.5, ge=0, le=1)
    blur_probability: float = Field(0.5, ge=0, le=1)
    flip_probability: float = Field(0.5, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _ordered_and_positive(cls, scale):
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"needs 0 < smallest <= largest, got {list(scale)}")
        return scale


class DataSection(Section):
    dataset: Literal["ade20k", "voc2012", "cityscapes", "scenes", "custom"] = Field(
        "ade20k", description="layout on disk, class names and colours"
    )
    root: str = Field(description="folder of the dataset, in its owner's layout, or of its TFRecords")
    format: Literal["files", "tfrecord"] = Field(
        "files", description="tfrecord: shards written by psanet data to-tfrecord"
    )
    train_split: str = Field(
        default_factory=lambda values: _splits(values)[0],
        description="the dataset's own name of the split; default training (ade20k, scenes), train_aug (voc2012), "
        "train (cityscapes, custom)",
    )
    val_split: str = Field(
        default_factory=lambda values: _splits(values)[1],
        description="default validation (ade20k, scenes), val (the others)",
    )
    class_names: str | None = Field(
        None, description="custom: file under root with one class name per line, in the order of the train ids"
    )
    class_colors: str | None = Field(
        None, description="custom: file under root with red, green, blue (0..255) per class; default: distinct colours"
    )
    list_file: str | None = Field(
        None,
        description="custom: list of `image label` lines under root, paths under root or absolute; {split} stands for "
        "the split, e.g. lists/{split}.txt",
    )
    image_folder: str = Field("images/{split}", description="custom without list_file: folder of the pictures")
    label_folder: str = Field("labels/{split}", description="... and of the labels, PNG of the same names")
    label_kind: Literal["labelIds", "labelTrainIds"] = Field("labelIds", description="cityscapes: which label files")
    crop_size: tuple[int, int] = Field((465, 465), description="rows and columns of a training crop, 8n+1")
    augmentation: AugmentationSection = AugmentationSection()
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="what to do with pictures and labels that cannot be read"
    )
    workers: int | None = Field(None, ge=1, description="threads that load pictures; default: TensorFlow decides")

    @model_validator(mode="after")
    def _custom_keys(self):
        if self.dataset == "custom" and self.class_names is None:
            raise ValueError("class_names is required for dataset: custom")
        if self.dataset != "custom":
            fields = type(self).model_fields
            given = [key for key in _CUSTOM_KEYS if getattr(self, key) != fields[key].default]
            if given:
                raise ValueError(f"{', '.join(given)}: only for dataset: custom, got dataset: {self.dataset}")
        return self

    @field_validator("crop_size")
    @classmethod
    def _eight_n_plus_one(cls, crop_size):
        for size in crop_size:
            if size < 9 or (size - 1) % 8:
                nearest = max(9, 8 * round((size - 1) / 8) + 1)
                raise ValueError(f"rows and columns must be 8n+1 and at least 9, got {size}; nearest is {nearest}")
        return crop_size
