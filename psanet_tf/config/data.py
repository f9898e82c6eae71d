"""`data:` section: which images, and what is done to them before the network sees them."""

import re
import string
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from psanet_tf.config.image_checks import check_bands, check_range, check_statistics
from psanet_tf.config.section import Section

_SPLITS = {
    "ade20k": ("training", "validation"),
    "scenes": ("training", "validation"),
    "signposts": ("training", "validation"),
    "voc2012": ("train_aug", "val"),
    "cityscapes": ("train", "val"),
    "pascal_context59": ("train", "val"),
    "pascal_context60": ("train", "val"),
    "coco_stuff164k": ("train2017", "val2017"),
    "mapillary_vistas": ("training", "validation"),
    "loveda": ("Train", "Val"),
    "isaid": ("train", "val"),
    "custom": ("train", "val"),
}
_CUSTOM_KEYS = (
    "class_names",
    "class_colors",
    "list_file",
    "image_folder",
    "label_folder",
    "label_values",
    "label_map",
    "ignore_label",
    "label_palette",
)
_Value = Annotated[int, Field(ge=0, le=255)]


def _splits(values):
    # Without a valid dataset the section is refused anyway.
    return _SPLITS[values.get("dataset", "ade20k")]


class ColorJitterSection(Section):
    brightness: float = Field(0.0, ge=0, allow_inf_nan=False, description="b: a random factor from 1 - b to 1 + b")
    contrast: float = Field(0.0, ge=0, allow_inf_nan=False, description="... of the difference from the mean grey")
    saturation: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="... of the difference from each pixel's grey"
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="h: a random turn from -h to h of the colour circle")

    @property
    def is_used(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))


class AugmentationSection(Section):
    scale: tuple[float, float] = Field((0.5, 2.0), description="smallest and largest random scale")
    rotate_degrees: float = Field(10.0, ge=0, le=180, description="largest rotation to either side")
    rotate_probability: float = Field(0.5, ge=0, le=1)
    blur_probability: float = Field(0.5, ge=0, le=1)
    flip_probability: float = Field(0.5, ge=0, le=1)
    cat_max_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a crop is drawn again, up to 10 times, where one class has this share of it or more",
    )
    color_jitter: ColorJitterSection = Field(
        ColorJitterSection(), description="of photographs: random brightness, contrast, saturation and hue"
    )

    @field_validator("scale")
    @classmethod
    def _ordered_and_positive(cls, scale):
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"needs 0 < smallest <= largest, got {list(scale)}")
        return scale


class DisplaySection(Section):
    bands: tuple[int, ...] | None = Field(
        None,
        description="one channel (grey) or three (red, green, blue), counted from 1, that make the picture; default "
        "[1, 2, 3], with fewer channels [1]",
    )
    range: tuple[float, float] | None = Field(
        None,
        description="values shown as black and as white; default: uint8 as it is, of others the 2nd to 98th percentile "
        "of each band of each image",
    )


class DataSection(Section):
    dataset: Literal[tuple(_SPLITS)] = Field("ade20k", description="layout on disk, class names and colours")
    root: str = Field(description="folder of the dataset, in its owner's layout, or of its TFRecords")
    format: Literal["files", "tfrecord"] = Field(
        "files", description="tfrecord: shards written by psanet data to-tfrecord"
    )
    train_split: str = Field(
        default_factory=lambda values: _splits(values)[0],
        description="the dataset's own name of the split; default as the dataset has it: training, train, train_aug "
        "(voc2012), train2017 (coco_stuff164k), Train (loveda)",
    )
    val_split: str = Field(
        default_factory=lambda values: _splits(values)[1],
        description="default as the dataset has it: validation, val, val2017 (coco_stuff164k), Val (loveda)",
    )
    class_names: str | None = Field(
        None, description="custom: file under root with one class name per line, in the order of the train ids"
    )
    class_colors: str | None = Field(
        None,
        description="custom: file under root with red, green, blue (0..255) per class; default: those of "
        "label_palette, or distinct ones",
    )
    list_file: str | None = Field(
        None,
        description="custom: list of `image label` lines under root, separated by white space, a tab or a comma; paths "
        "under root or absolute; {split} stands for the split, e.g. lists/{split}.txt",
    )
    image_folder: str = Field("images/{split}", description="custom without list_file: folder of the images")
    label_folder: str = Field("labels/{split}", description="... and of the labels, PNG of the same names")
    label_values: tuple[_Value, ...] | None = Field(
        None,
        description="custom: the values in the label files, in the order of class_names, e.g. [0, 255] for black and "
        "white masks; 0 and 255 mean no class where they are not among them; default 0, 1, 2, ..., and 255 for no "
        "class",
    )
    label_map: dict[_Value, int | str] | None = Field(
        None,
        description="custom: the class (its name, or 0, 1, 2, ...) of each value in the label files, where several are "
        "one class, e.g. {7: road, 8: road, 11: building}; takes the place of label_values",
    )
    ignore_label: _Value | tuple[_Value, ...] | None = Field(
        None,
        description="custom: the values in the label files that mean no class; default 255, and with label_values or "
        "label_map 0 and 255 where they are no class",
    )
    label_palette: str | None = Field(
        None,
        description="custom: file under root with the colour of each class in the label files, e.g. road,128,64,128 "
        "per line (CVAT's labelmap.txt does, too); the name ignore means no class. Labels are then read by colour",
    )
    label_kind: Literal["labelIds", "labelTrainIds"] = Field("labelIds", description="cityscapes: which label files")
    channels: int = Field(3, ge=1, description="of every image: 1 for grey, 4 for RGB and infrared, 12 for bands, ...")
    dtype: Literal["uint8", "uint16", "float32"] = Field(
        "uint8", description="numbers in the image files; 3 channels of uint8 are photographs of whatever form"
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="per channel, in units of the stored values; default: ImageNet's for photographs, for others "
        "computed from the training images and written into the run",
    )
    std: tuple[float, ...] | None = Field(None, description="... and the standard deviation")
    display: DisplaySection = Field(DisplaySection(), description="what a picture of an image shows")
    crop_size: tuple[int, int] = Field(
        (465, 465),
        description="rows and columns of a training crop, at least 9; 8n+1 align features and pixels exactly",
    )
    augmentation: AugmentationSection = AugmentationSection()
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="what to do with images and labels that cannot be read"
    )
    workers: int | None = Field(None, ge=1, description="threads that load images; default: processor cores")

    @model_validator(mode="after")
    def _custom_keys(self):
        if self.dataset == "custom" and self.class_names is None:
            raise ValueError(
                "class_names is required for dataset: custom: a file under data.root with one class name per line, in "
                "the order of the labels' values"
            )
        if self.dataset != "custom":
            fields = type(self).model_fields
            given = [key for key in _CUSTOM_KEYS if getattr(self, key) != fields[key].default]
            if given:
                raise ValueError(f"{', '.join(given)}: only for dataset: custom, got dataset: {self.dataset}")
        if self.dataset != "cityscapes" and self.label_kind != "labelIds":
            raise ValueError(f"label_kind: only for dataset: cityscapes, got dataset: {self.dataset}; leave it out")
        if self.list_file is not None:
            fields = type(self).model_fields
            given = [key for key in ("image_folder", "label_folder") if getattr(self, key) != fields[key].default]
            if given:
                raise ValueError(
                    f"{' and '.join(given)}: list_file {self.list_file} says where images and labels are: leave one "
                    "of the two out"
                )
        return self

    @model_validator(mode="after")
    def _format_of_images(self):
        check_statistics(self.mean, self.std, self.channels)
        check_bands(self.display.bands or (1,), self.channels)
        check_range(self.display.range)
        if self.augmentation.color_jitter.is_used and (self.channels, self.dtype) != (3, "uint8"):
            raise ValueError(
                "augmentation.color_jitter is for photographs, three channels of uint8, got channels: "
                f"{self.channels}, dtype: {self.dtype}; leave it out"
            )
        return self

    @field_validator("root")
    @classmethod
    def _is_a_local_folder(cls, root):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", root):
            raise ValueError("must be a folder of this machine, not an address: copy or mount the data first")
        return root

    @field_validator("list_file", "image_folder", "label_folder")
    @classmethod
    def _only_split_in_braces(cls, path):
        try:
            wrong = {name for _, name, _, _ in string.Formatter().parse(path or "")} - {"split", None}
        except ValueError as error:
            raise ValueError(f"{error}; only {{split}} can stand in braces") from None
        if wrong:
            raise ValueError(f"only {{split}} can stand in braces, got {{{min(wrong)}}}")
        return path

    @field_validator("label_values")
    @classmethod
    def _values_differ(cls, values):
        if values is not None and len(set(values)) < len(values):
            raise ValueError("every class needs a value of its own; label_map gives one class several")
        return values

    @model_validator(mode="after")
    def _one_rule_for_labels(self):
        given = [key for key in ("label_values", "label_map", "label_palette") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: each says what label files hold, set one of them")
        if self.label_palette is not None and self.ignore_label is not None:
            raise ValueError(
                "ignore_label is for values; beside label_palette give the colour the name ignore in that file"
            )
        return self

    @field_validator("crop_size")
    @classmethod
    def _two_features(cls, crop_size):
        if min(crop_size) < 9:
            raise ValueError(f"rows and columns must be at least 9, got {list(crop_size)}")
        return crop_size
