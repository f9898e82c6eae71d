"""Facts about datasets: class names, colours, and how values in label files become train ids."""

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat, image_format
from psanet_tf.data.label_rules import IGNORE_LABEL, MAX_CLASSES, OUT_OF_RANGE, LabelRule, label_rule
from psanet_tf.data.layouts import existing_root
from psanet_tf.data.text_files import read_lines

# Values of Cityscapes' labelIds files in the order of their train ids (cityscapesScripts, labels.py).
_CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_LARGEST_ID = 33

# COCO-Stuff's labels hold the category id less one; of these numbers no thing was labelled (nightrome/cocostuff).
_COCO_STUFF_VALUES = 182
_COCO_STUFF_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetInfo:
    """One dataset's classes; read by the pipeline, the trainer, evaluation, images and exported models.

    Attributes:
        name: of the dataset, e.g. ``"ade20k"``.
        class_names: one name per train id.
        colors: uint8 [K, 3], RGB, read-only.
        ignore_label: the train id of pixels that count neither in the loss nor in the scores.
        label_rule: what values or colours in the label files stand for, where that is not the dataset's own rule.
        long_side: median long side of the training images, in pixels, where it was measured.
        images: `ImageFormat` of the images: channels, dtype, normalization.
    """

    name: str
    class_names: tuple[str, ...]
    colors: np.ndarray
    ignore_label: int = IGNORE_LABEL
    label_rule: LabelRule | None = None
    long_side: int | None = None
    images: ImageFormat = PHOTOGRAPHS

    def __post_init__(self):
        colors = np.array(self.colors)
        count = len(self.class_names)
        if not 1 <= count <= MAX_CLASSES:
            raise ValueError(f"dataset {self.name!r}: needs 1 to {MAX_CLASSES} classes, got {count}")
        if colors.shape != (count, 3) or colors.min() < 0 or colors.max() > 255:
            raise ValueError(
                f"dataset {self.name!r}: needs one colour of three values 0..255 for each of its {count} classes, "
                f"got an array of shape {colors.shape}"
            )
        colors = colors.astype(np.uint8)
        colors.flags.writeable = False
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "colors", colors)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; plain lists and strings, for JSON."""
        values = {
            "name": self.name,
            "class_names": list(self.class_names),
            "colors": self.colors.tolist(),
            "ignore_label": self.ignore_label,
        }
        if self.label_rule is not None:
            values["label_rule"] = self.label_rule.to_dict()
        if self.long_side is not None:
            values["long_side"] = self.long_side
        if self.images != PHOTOGRAPHS:
            values["images"] = self.images.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetInfo":
        return cls(
            values["name"],
            tuple(values["class_names"]),
            np.array(values["colors"]),
            values["ignore_label"],
            LabelRule.from_dict(values["label_rule"]) if "label_rule" in values else None,
            values.get("long_side"),
            ImageFormat.from_dict(values["images"]) if "images" in values else PHOTOGRAPHS,
        )


def dataset_info(name: str) -> DatasetInfo:
    """Facts about a dataset that the package knows.

    Args:
        name: a value of `DataSection.dataset` but ``"custom"``, e.g. ``"ade20k"``.

    Raises:
        ValueError: another name.
    """
    if name not in _KNOWN:
        raise ValueError(f"unknown dataset {name!r}; known are {', '.join(_KNOWN)}")
    folder = resources.files("psanet_tf.data") / "classes"
    names = (folder / f"{name}_names.txt").read_text(encoding="utf-8").splitlines()
    colors = [line.split() for line in (folder / f"{name}_colors.txt").read_text(encoding="utf-8").splitlines()]
    return DatasetInfo(name, tuple(names), np.array(colors, int), label_rule=_known_rule(name, colors))


def info_of(data: DataSection) -> DatasetInfo:
    """Facts about the dataset of a configuration.

    Args:
        data: a `DataSection`; for ``dataset: custom`` the names come from its `class_names` file.

    Raises:
        ValueError: a file of names or colours that cannot be used; the message names it, the line and what is right.
            Values or colours of labels that do not go together; see `label_rule`.
        FileNotFoundError: there is no such file.
    """
    images = image_format(data)
    if data.dataset != "custom":
        return dataclasses.replace(dataset_info(data.dataset), images=images)
    root = existing_root(data, data.class_names)
    names = _class_names(root / data.class_names)
    rule = label_rule(data, names, root / data.class_names)
    if data.class_colors is not None:
        colors = _class_colors(data, len(names))
    elif rule is not None and rule.colors:
        colors = rule.class_colors()
    else:
        colors = distinct_colors(len(names))
    if data.format == "tfrecord" and data.label_palette is not None:
        # What the colours are is known, but records hold train ids.
        rule = None
    return DatasetInfo("custom", names, colors, label_rule=rule, images=images)


def _class_names(path):
    names = read_lines(path, "data.class_names", "one class name per line, in the order of the labels' values")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"data.class_names: {path} holds {len(names)} lines, a dataset at most {MAX_CLASSES} classes")
    line_of = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise ValueError(
                f"data.class_names: line {line} of {path} is empty, but every line is a class: name it, or remove it "
                "if no label file has its value"
            )
        if name in line_of:
            raise ValueError(f"data.class_names: lines {line_of[name]} and {line} of {path} both say {name!r}")
        line_of[name] = line
    return tuple(names)


def _class_colors(data, count):
    path = Path(data.root) / data.class_colors
    advice = "red, green and blue (0..255) of one class per line, e.g. 0 128 255"
    rows = []
    for line, text in enumerate(read_lines(path, "data.class_colors", advice), start=1):
        words = text.replace(",", " ").split()
        if len(words) != 3 or not all(word.isdecimal() and int(word) <= 255 for word in words):
            raise ValueError(
                f"data.class_colors: line {line} of {path} must be three numbers 0..255 like 0 128 255, got {text!r}"
            )
        rows.append([int(word) for word in words])
    if len(rows) != count:
        raise ValueError(
            f"data.class_colors: {path} holds {len(rows)} colours, {Path(data.root) / data.class_names} {count} "
            "classes: it needs one line per class, in the same order"
        )
    return np.array(rows)


def distinct_colors(count: int) -> np.ndarray:
    """uint8 [count, 3]: the PASCAL VOC colour map (the bits of the index dealt out to red, green, blue)."""
    index = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def numbered_classes(count: int) -> DatasetInfo:
    """`DatasetInfo` of classes without known names: "class 0", "class 1", ... in colours that differ."""
    return DatasetInfo("unnamed", tuple(f"class {index}" for index in range(count)), distinct_colors(count))


def label_value_table(info: DatasetInfo, train_ids: bool = False) -> np.ndarray:
    """How values in a dataset's label files become train ids.

    Args:
        info: DatasetInfo.
        train_ids: the files hold train ids already (Cityscapes' ``*_labelTrainIds.png``). So do, once they are read,
            files whose colours are.

    Returns:
        uint8 [256]; entry v is the train id of value v, `info.ignore_label`, or `OUT_OF_RANGE` for a value that
        such a file cannot hold.
    """
    count = info.num_classes
    table = np.full(256, OUT_OF_RANGE, np.uint8)
    if info.label_rule is not None and info.label_rule.values and not train_ids:
        return info.label_rule.value_table()
    if info.name in ("ade20k", "scenes", "signposts") and not train_ids:
        table[0] = info.ignore_label
        table[1 : count + 1] = np.arange(count)
        return table
    if info.name == "cityscapes" and not train_ids:
        table[: _CITYSCAPES_LARGEST_ID + 1] = info.ignore_label
        # Licence plates are -1, stored as 255.
        table[255] = info.ignore_label
        table[list(_CITYSCAPES_LABEL_IDS)] = np.arange(count)
        return table
    table[:count] = np.arange(count)
    table[info.ignore_label] = info.ignore_label
    return table


def _known_rule(name, colors):
    """`LabelRule` of a dataset whose labels hold no train ids, where `label_value_table` has none for it."""
    if name == "isaid":
        return LabelRule(colors=tuple(sorted((tuple(map(int, color)), index) for index, color in enumerate(colors))))
    if name in ("pascal_context59", "loveda"):
        return LabelRule(values=((0, IGNORE_LABEL), *((index + 1, index) for index in range(len(colors)))))
    if name == "mapillary_vistas":
        # The last value is "Unlabeled".
        return LabelRule(values=(*((index, index) for index in range(len(colors))), (len(colors), IGNORE_LABEL)))
    if name == "coco_stuff164k":
        values = [value for value in range(_COCO_STUFF_VALUES) if value not in _COCO_STUFF_UNUSED]
        return LabelRule(values=(*((value, index) for index, value in enumerate(values)), (255, IGNORE_LABEL)))
    return None


_KNOWN = (
    "ade20k",
    "voc2012",
    "cityscapes",
    "scenes",
    "signposts",
    "pascal_context59",
    "pascal_context60",
    "coco_stuff164k",
    "mapillary_vistas",
    "loveda",
    "isaid",
)
