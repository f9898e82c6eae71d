"""Files that say which colours classes have in label files, in the forms that annotation tools write.

A line is a class and its colour: ``road,128,64,128`` or ``128 64 128 road`` or ``road,#804080``; with a heading
(``name,r,g,b``) the columns may come in any order and others beside them. CVAT's ``labelmap.txt``
(``road:128,64,128::``) is read as it is.
"""

import csv
import os
import re

from psanet_tf.data.text_files import read_lines

Color = tuple[int, int, int]

_ADVICE = "a class and its colour per line, e.g. road,128,64,128"
_COLUMNS = {
    "name": "name", "class": "name", "label": "name", "class_name": "name", "category": "name",
    "r": "red", "red": "red", "g": "green", "green": "green", "b": "blue", "blue": "blue",
    "color": "color", "colour": "color", "hex": "color",
}  # fmt: skip
_HEX = re.compile(r"#([0-9a-fA-F]{6})")


def read_palette(path: str | os.PathLike, key: str) -> list[tuple[str, Color]]:
    """Classes and colours, in the order of the file; a class may have several colours.

    Args:
        path: of a text file, UTF-8; lines that start with ``#`` and a space are comments.
        key: of the configuration, or the option, that names it, for messages.

    Returns:
        list of (name, (red, green, blue)).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of another form, or a colour of two classes; the message names the line.
    """
    entries, line_of, columns = [], {}, None
    for number, line in enumerate(read_lines(path, key, _ADVICE), start=1):
        if not line or re.match(r"#\s", line) or line == "#":
            continue
        heading = _heading(line) if not entries and columns is None else None
        if heading is not None:
            columns = heading
            continue
        entry = _entry(line, columns)
        if entry is None:
            raise ValueError(f"{key}: line {number} of {path} must be {_ADVICE}, got {line!r}")
        name, color = entry
        other = line_of.setdefault(color, (number, name))
        if other[1] != name:
            raise ValueError(
                f"{key}: lines {other[0]} and {number} of {path} give {other[1]!r} and {name!r} one colour {color}: "
                "no program could tell them apart"
            )
        entries.append(entry)
    if not entries:
        raise ValueError(f"{key}: {path} holds no colours; it must hold {_ADVICE}")
    return entries


def _heading(line):
    """{"name": index, ...} of a line of column names, or None."""
    words = [_COLUMNS.get(word.strip().lower()) for word in _split(line)]
    columns = {word: index for index, word in enumerate(words) if word is not None}
    whole = {"name", "color"} <= columns.keys() or {"name", "red", "green", "blue"} <= columns.keys()
    return columns if whole else None


def _entry(line, columns):
    labelmap = re.fullmatch(r"(.+?):\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?::.*)?", line)
    if labelmap:
        return _named(labelmap[1], labelmap.groups()[1:])
    words = _split(line)
    if columns is not None:
        if len(words) <= max(columns.values()):
            return None
        words = [words[columns[key]] for key in ("name", "color", "red", "green", "blue") if key in columns]
        if "color" in columns:
            words = [words[0], f"#{words[1].lstrip('#')}"]
    if len(words) >= 4:
        for color, name in ((words[-3:], words[:-3]), (words[:3], words[3:])):
            if all(word.isdecimal() for word in color):
                return _named(" ".join(name), color)
    for color, name in ((words[-1], words[:-1]), (words[0], words[1:])):
        if found := _HEX.fullmatch(color):
            code = int(found[1], 16)
            return _named(" ".join(name), (code >> 16, code >> 8 & 255, code & 255))
    return None


def _named(name, numbers):
    color = tuple(int(number) for number in numbers)
    name = name.strip().strip('"')
    return (name, color) if name and max(color) <= 255 else None


def _split(line):
    for separator in ("\t", ",", ";"):
        if separator in line:
            words = [word.strip() for word in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
            # "64 128 64<tab>road"
            parts = [word.split() if re.fullmatch(r"\d+\s+\d+\s+\d+", word) else [word] for word in words if word]
            return [part for split in parts for part in split]
    return line.split()
