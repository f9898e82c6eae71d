"""What the values, or the colours, in label files stand for: which class, or none."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.data.findings import counted
from psanet_tf.data.palette_files import Color, read_palette

IGNORE_LABEL = 255
OUT_OF_RANGE = 254  # in a table: a value, or a colour, that must not occur in a label file
MAX_CLASSES = 254

IGNORE = "ignore"
"""In files of colours: the name of what is no class."""

_SMOOTHED = 20  # more colours than this that are no class come from smoothing, from JPEG, or from an image
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """The meaning of label files that do not hold train ids.

    Attributes:
        values: ((value, train id or `IGNORE_LABEL`), ...) of files whose values are read.
        colors: (((red, green, blue), train id or `IGNORE_LABEL`), ...) of files whose colours are read; one of the two
            is empty.
    """

    values: tuple[tuple[int, int], ...] = ()
    colors: tuple[tuple[Color, int], ...] = ()

    def value_table(self) -> np.ndarray:
        """uint8 [256]: entry v is the train id of value v, `IGNORE_LABEL` or `OUT_OF_RANGE`."""
        table = np.full(256, OUT_OF_RANGE, np.uint8)
        for value, train_id in self.values:
            table[value] = train_id
        return table

    def color_table(self) -> np.ndarray:
        """uint8 [2^24], read-only: as `value_table`, of ``red * 65536 + green * 256 + blue``."""
        return _color_table(self.colors)

    def class_colors(self) -> np.ndarray:
        """uint8 [K, 3]: the first colour of each class, of a rule of colours."""
        first = {}
        for color, train_id in self.colors:
            if train_id != IGNORE_LABEL:
                first.setdefault(train_id, color)
        return np.array([first[train_id] for train_id in sorted(first)], np.uint8)

    def class_values(self) -> list[int]:
        """The values that are classes, in the order of the classes."""
        return [value for value, train_id in sorted(self.values, key=lambda pair: pair[1]) if train_id != IGNORE_LABEL]

    def train_ids_of_colors(self, codes: np.ndarray, where: str | os.PathLike) -> np.ndarray:
        """Train ids of colours.

        Args:
            codes: int32 [H, W], as `color_table` counts colours.
            where: what messages call the file.

        Returns:
            uint8 [H, W].

        Raises:
            ValueError: colours that have no class; the message names the file, and how many pixels have each.
        """
        train_ids = self.color_table()[codes]
        wrong = train_ids == OUT_OF_RANGE
        if wrong.any():
            raise ValueError(f"{where}: {_unknown_colors(codes[wrong])}")
        return train_ids

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; lists of numbers, for JSON."""
        return {
            "values": [list(pair) for pair in self.values],
            "colors": [[*color, train_id] for color, train_id in self.colors],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LabelRule":
        return cls(
            tuple((value, train_id) for value, train_id in values["values"]),
            tuple((tuple(color), train_id) for *color, train_id in values["colors"]),
        )


def label_rule(data: DataSection, class_names: Sequence[str], names_file: str | os.PathLike) -> LabelRule | None:
    """The rule of a custom dataset; None where label files hold train ids, and 255 for no class.

    Args:
        data: a `DataSection`.
        class_names: one per train id.
        names_file: where they are from, for messages.

    Raises:
        ValueError: a value or a colour with two meanings, a class that can never occur, or a name that is no class;
            the message names the key, the value and what would be right.
        FileNotFoundError: there is no such palette.
    """
    if data.label_palette is not None:
        return _color_rule(data, class_names, names_file)
    if data.label_values is None and data.label_map is None and data.ignore_label is None:
        return None
    classes = _classes_of_values(data, class_names, names_file)
    if data.ignore_label is None:
        ignored = [value for value in (0, 255) if value not in classes]
    else:
        ignored = [data.ignore_label] if isinstance(data.ignore_label, int) else list(data.ignore_label)
    for value in ignored:
        if value in classes:
            raise ValueError(
                f"data.ignore_label: {value} is the value of class {class_names[classes[value]]!r}, too: leave it out, "
                f"or list the values of the classes in data.label_values, e.g. {_shifted(len(class_names), ignored)}"
            )
    pairs = {**classes, **dict.fromkeys(ignored, IGNORE_LABEL)}
    if len(classes) == 256:
        raise ValueError(
            "data.label_map: all 256 values are classes, and one has to be left for pixels that have none: where an "
            "image is turned, there are some"
        )
    return LabelRule(values=tuple(sorted(pairs.items())))


def _classes_of_values(data, class_names, names_file):
    """{value: train id}"""
    count = len(class_names)
    if data.label_map is None:
        values = range(count) if data.label_values is None else data.label_values
        if len(values) != count:
            raise ValueError(
                f"data.label_values: needs one value for each of the {count} classes in {names_file}, got {len(values)}"
            )
        return {value: index for index, value in enumerate(values)}
    classes = {}
    for value, target in data.label_map.items():
        index = target if isinstance(target, int) else _index_of(target, class_names)
        if index is None or not 0 <= index < count:
            raise ValueError(
                f"data.label_map: value {value} is mapped to {target!r}, which is no class of {names_file}: write a "
                f"name of it, or 0..{count - 1}; values that mean no class belong in data.ignore_label"
            )
        classes[value] = index
    absent = [class_names[index] for index in sorted(set(range(count)) - set(classes.values()))]
    if absent:
        raise ValueError(
            f"data.label_map: no value is mapped to {_listed(map(repr, absent))}: map one, or take the name out of "
            f"{names_file}"
        )
    return classes


def _color_rule(data, class_names, names_file):
    path = Path(data.root) / data.label_palette
    colors = {}
    for name, color in read_palette(path, "data.label_palette"):
        index = _index_of(name, class_names)
        if index is None and name == IGNORE:
            index = IGNORE_LABEL
        if index is None:
            raise ValueError(
                f"data.label_palette: {path} names {name!r}, which is no class of {names_file} "
                f"({_listed(class_names)}): call it {IGNORE!r} if it is none, or the class that it belongs to"
            )
        colors[color] = index
    absent = [name for index, name in enumerate(class_names) if index not in colors.values()]
    if absent:
        raise ValueError(
            f"data.label_palette: {path} has no colour of {_listed(map(repr, absent))}: add a line for each class of "
            f"{names_file}, or take the name out there"
        )
    return LabelRule(colors=tuple(colors.items()))


def _index_of(name, class_names):
    return list(class_names).index(name) if name in class_names else None


def _shifted(count, ignored):
    values = [value for value in range(256) if value not in ignored][:count]
    return f"[{','.join(map(str, values if count <= _SHOWN else [*values[:3], '...', values[-1]]))}]"


def _listed(names):
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def color_text(code: int) -> str:
    """``"#ff8000"`` of a colour as `LabelRule.color_table` counts them."""
    return f"#{int(code):06x}"


def _unknown_colors(codes):
    found, counts = np.unique(codes, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:_SHOWN]
    shown = ", ".join(f"{color_text(found[index])} ({counts[index]})" for index in often)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    advice = (
        "so many colours come from smoothing or JPEG: export the labels anew, without anti-aliasing"
        if len(found) > _SMOOTHED
        else "if these are the labels, add a line for each to data.label_palette, with the name of a class or "
        f"{IGNORE!r}"
    )
    return f"{counted(len(codes), 'pixel')} of colours that have no class: {shown}{more}; {advice}"


@functools.lru_cache(maxsize=4)
def _color_table(colors):
    table = np.full(1 << 24, OUT_OF_RANGE, np.uint8)
    for (red, green, blue), train_id in colors:
        table[red << 16 | green << 8 | blue] = train_id
    table.flags.writeable = False
    return table
