"""Files beside masks that say which value or colour is which class, as annotation tools write them."""

import csv
import dataclasses
from pathlib import Path

from psanet_tf.data.label_rules import IGNORE
from psanet_tf.data.palette_files import Color, read_palette
from psanet_tf.data.text_files import read_lines

_PALETTES = ("labelmap.txt", "class_dict.csv", "label_colors.txt")
_VALUES = "_classes.csv"
_DEPTH = 2


@dataclasses.dataclass(frozen=True)
class ClassFiles:
    """What such files say.

    Attributes:
        colors: {"#ff8000": name}
        values: {"7": name}
        color_of_name: {name: (red, green, blue)}
        ignored: names that are no class.
        notes: which files were read, in words.
        is_given: whether the user gave the file.
    """

    colors: dict[str, str] = dataclasses.field(default_factory=dict)
    values: dict[str, str] = dataclasses.field(default_factory=dict)
    color_of_name: dict[str, Color] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    is_given: bool = False


def read_class_files(root: Path, palette: Path | None = None) -> ClassFiles:
    """What the files below a folder, or the given palette, say.

    Read are CVAT's ``labelmap.txt``, Roboflow's ``_classes.csv``, and ``class_dict.csv`` and ``label_colors.txt``.

    Args:
        root: folder to look into, and two levels below it.
        palette: a file as `read_palette` takes it, in the place of those.

    Raises:
        ValueError, FileNotFoundError: the palette cannot be used, or files contradict each other; the message names it.
    """
    if palette is not None:
        return dataclasses.replace(_of_palettes([palette], "--palette", ()), is_given=True)
    found = [path for depth in range(_DEPTH + 1) for path in sorted(root.glob("*/" * depth + "*")) if path.is_file()]
    palettes = [path for path in found if path.name in _PALETTES]
    if palettes:
        return _of_palettes(palettes, "classes", tuple(f"classes and colours are from {path}" for path in palettes))
    lists = [path for path in found if path.name == _VALUES]
    values = {}
    for path in lists:
        own = _pixel_values(path)
        for value, name in own.items():
            if values.setdefault(value, name) != name:
                raise ValueError(f"{path}: value {value} is {name!r}, in {lists[0]} it is {values[value]!r}")
    return ClassFiles(values=values, notes=tuple(f"classes are from {path}" for path in lists))


def _of_palettes(paths, key, notes):
    colors, color_of_name, order = {}, {}, []
    for path in paths:
        for name, color in read_palette(path, key):
            text = "#{:02x}{:02x}{:02x}".format(*color)
            if colors.setdefault(text, name) != name:
                raise ValueError(f"{path}: colour {text} is {name!r}, in {paths[0]} it is {colors[text]!r}")
            color_of_name.setdefault(name, color)
            if name not in order:
                order.append(name)
    # CVAT's masks of one channel hold the number of the line.
    values = {str(index): name for index, name in enumerate(order)} if paths[0].name == "labelmap.txt" else {}
    return ClassFiles(colors, values, color_of_name, frozenset({IGNORE}), notes)


def _pixel_values(path):
    """{"7": name} of a table with the columns ``Pixel Value`` and ``Class``."""
    lines = read_lines(path, "classes", "a value and a class per line, e.g. 1, road")
    rows = csv.reader(lines, skipinitialspace=True)
    values = {}
    for number, row in enumerate(rows, start=1):
        if len(row) == 2 and row[0].strip().isdecimal():
            values[str(int(row[0]))] = row[1].strip()
        elif number > 1 and row:
            raise ValueError(f"line {number} of {path} must be a value and a class, e.g. 1, road, got {row}")
    return values
