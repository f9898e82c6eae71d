"""From the keys that a source tells labels by to classes: by its own names and by what the user says, no guessing."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from psanet_tf.data.catalog import distinct_colors
from psanet_tf.data.findings import counted
from psanet_tf.data.importing.source import UNLABELLED, Source
from psanet_tf.data.label_rules import IGNORE_LABEL, MAX_CLASSES, OUT_OF_RANGE

MANY = 20  # more keys than this without a class come from smoothing, from JPEG, or from images taken for masks
_SHOWN = 8
_SMOOTHED = (
    "so many come from masks that were resized with smoothing, anti-aliased, or saved as JPEG on the way: export them "
    "anew; or else "
)


@dataclasses.dataclass
class KeyCounts:
    """How often each key occurs in the labels of a source.

    Attributes:
        pixels, files: {code: how many}.
        first: {code: the first file that has it}.
        num_files: how many files were counted.
    """

    pixels: dict[int, int] = dataclasses.field(default_factory=dict)
    files: dict[int, int] = dataclasses.field(default_factory=dict)
    first: dict[int, str] = dataclasses.field(default_factory=dict)
    num_files: int = 0

    def add(self, where: str, codes: np.ndarray, pixels: np.ndarray) -> None:
        """Takes in one file: the codes that occur in it, and how many pixels have each."""
        self.num_files += 1
        for code, count in zip(codes.tolist(), pixels.tolist(), strict=True):
            self.pixels[code] = self.pixels.get(code, 0) + count
            self.files[code] = self.files.get(code, 0) + 1
            self.first.setdefault(code, where)


@dataclasses.dataclass(frozen=True)
class LabelChoices:
    """What the user says.

    Attributes:
        classes: names in the order of the train ids, which may be of more classes than occur; of values without names,
            in the order of the values.
        mapping: {key or name in the source: class}.
        ignore: keys or names that are no class.
    """

    classes: tuple[str, ...] | None = None
    mapping: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignore: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ClassRule:
    """Which class each key is.

    Attributes:
        class_names: in the order of the train ids.
        colors: uint8 [K, 3], or None where the source has no colours.
        table: uint8, the train id of each code, or `IGNORE_LABEL`.
        class_of: {key: name of its class, or None for no class} of all keys that occur.
    """

    class_names: tuple[str, ...]
    colors: np.ndarray | None
    table: np.ndarray
    class_of: dict[str, str | None]


def class_rule(source: Source, counts: KeyCounts, choices: LabelChoices) -> ClassRule:
    """The class of every key that occurs.

    Args:
        source: what was found.
        counts: of the keys in its labels.
        choices: what the user says; counts more than what the source says.

    Raises:
        ValueError: a key that has no class, with its number of pixels and files and the first file; a choice about
            something that is not there; no class at all, or too many.
    """
    found = {source.keys.key(code): code for code in sorted(counts.pixels)}
    names = _names(source, found, choices)
    ignored = {key for key in source.ignored if names.get(key) == source.names.get(key, key)}
    ignored |= {key for key in {*found, *names} if key in choices.ignore or names.get(key) in choices.ignore}
    uncovered = [key for key in found if key not in names and key not in ignored]
    if uncovered:
        raise ValueError(_uncovered(uncovered, found, counts, source))
    names = {key: name for key, name in names.items() if key not in ignored}
    class_names = _ordered(source, names, found, counts, choices)
    if not class_names:
        raise ValueError("no class is left: all that occurs is ignored")
    if len(class_names) > MAX_CLASSES:
        raise ValueError(f"{len(class_names)} classes, a dataset can have {MAX_CLASSES}: map or ignore some (--map)")
    unfit = [name for name in class_names if name != name.strip() or not name or "\n" in name]
    if unfit:
        raise ValueError(f"{unfit[0]!r} is no name of a class that a line can hold: --map {unfit[0]!r}=NAME")
    table = np.full(source.keys.count, OUT_OF_RANGE, np.uint8)
    for key, code in found.items():
        table[code] = IGNORE_LABEL if key in ignored else class_names.index(names[key])
    class_of = {key: None if key in ignored else names[key] for key in found}
    return ClassRule(class_names, _colors(source, names, class_names), table, class_of)


def _names(source, found, choices):
    """{key: class} by the source, the order of --classes and --map."""
    keys = source.keys
    names = {name: name for name in keys.names} | dict(source.names)
    if keys.kind == "value" and not source.names and choices.classes and not choices.mapping:
        names = _in_order([key for key in found if key not in choices.ignore], choices.classes)
    own = dict(names)  # one --map does not change what another one means
    own_names = set(own.values())
    for key, name in choices.mapping.items():
        keys_of_name = [other for other, its in own.items() if its == key]
        if key not in found and key not in own and not keys_of_name and key != UNLABELLED:
            raise ValueError(f"--map {key}={name}: there is no {keys.kind} {key!r}; {_there(found, own_names)}")
        for other in keys_of_name or [key]:
            names[other] = name
    for key in choices.ignore:
        # A value may well be ignored that does not occur.
        if keys.kind == "label" and key not in names and key not in own_names and key != UNLABELLED:
            raise ValueError(f"--ignore {key}: there is no label {key!r}; {_there(found, own_names)}")
    return names


def _there(found, own_names):
    there = list(dict.fromkeys([*own_names, *found]))
    return f"there are {', '.join(sorted(there)[:_SHOWN])}{', ...' if len(there) > _SHOWN else ''}"


def _in_order(keys, classes):
    """{key: class} of values that have no names in the source."""
    values = sorted(map(int, keys))
    if values and values[0] == 0 and values[-1] < len(classes):
        return {str(value): classes[value] for value in values}
    if len(values) == len(classes):
        return {str(value): name for value, name in zip(values, classes, strict=True)}
    shown = ", ".join(map(str, values[:_SHOWN])) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
    smoothed = _SMOOTHED if len(values) > max(MANY, 2 * len(classes)) else ""
    raise ValueError(
        f"--classes gives {counted(len(classes), 'name')}, the labels hold {counted(len(values), 'value')} ({shown}): "
        f"{smoothed}say which value is which class (--map VALUE=NAME for each), or which are none (--ignore VALUE)"
    )


def _ordered(source, names, found, counts, choices):
    if choices.classes is not None:
        others = [key for key in found if key in names and names[key] not in choices.classes]
        if others:
            key = others[0]
            raise ValueError(
                f"{_counted_key(key, found[key], counts)} is {names[key]!r}, which --classes does not name: add it "
                f"there, or say what it is (--map {key}=NAME) or that it is no class (--ignore {key})"
            )
        return tuple(choices.classes)
    mapped = [choices.mapping.get(name, name) for name in source.order]
    rest = [names[key] for key in sorted(names, key=lambda key: found.get(key, source.keys.count))]
    order = [name for name in dict.fromkeys([*mapped, *rest]) if name in names.values()]
    unlabelled = names.get(UNLABELLED)
    if unlabelled is not None and unlabelled not in mapped:
        # The background comes first, as in most datasets.
        order = [unlabelled, *(name for name in order if name != unlabelled)]
    return tuple(order)


def _colors(source, names, class_names):
    colors = dict(source.colors)
    for key, name in names.items():
        if source.keys.kind == "colour":
            code = int(key[1:], 16)
            colors.setdefault(name, (code >> 16, code >> 8 & 255, code & 255))
        elif (own := source.names.get(key, key)) in source.colors:
            colors.setdefault(name, source.colors[own])
    if not any(name in colors for name in class_names):
        return None
    free = iter([color for color in map(tuple, distinct_colors(256).tolist()) if color not in colors.values()])
    return np.array([colors[name] if name in colors else next(free) for name in class_names], np.uint8)


def _counted_key(key, code, counts):
    files = counted(counts.files[code], "file")
    return f"{key} ({counted(counts.pixels[code], 'pixel')} in {files}, first {counts.first[code]})"


def _uncovered(keys, found, counts, source):
    if keys == [UNLABELLED]:
        code = found[UNLABELLED]
        return (
            f"{counted(counts.pixels[code], 'pixel')} in {counted(counts.files[code], 'file')} have no label (first: "
            f"{counts.first[code]}): say what they are: --map {UNLABELLED}=background makes them a class, --ignore "
            f"{UNLABELLED} keeps them out of loss and scores"
        )
    shown = ", ".join(_counted_key(key, found[key], counts) for key in keys[:_SHOWN])
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    kind = source.keys.kind
    text = f"{counted(len(keys), kind)} without a class: {shown}{more}; "
    if len(keys) > MANY:
        text += _SMOOTHED
    how = f"name each with --map {keys[0]}=NAME"
    if kind == "colour":
        how = f"write a line for each into a file, e.g. NAME,{_rgb(keys[0])}, and give it as --palette, or {how}"
    elif kind == "value" and len(keys) == len(found) and len(keys) <= MANY:
        how = f"give their names in this order, --classes {','.join(f'NAME{key}' for key in keys)}, or {how}"
    return f"{text}{how}; what is no class goes into --ignore, e.g. --ignore {keys[0]}"


def _rgb(key):
    code = int(key[1:], 16)
    return f"{code >> 16},{code >> 8 & 255},{code & 255}"


def describe_keys(source: Source, counts: KeyCounts, class_of: Mapping[str, str | None]) -> Sequence[str]:
    """A line for each key that occurs: its share of pixels, its files, its class."""
    total = sum(counts.pixels.values())
    lines = []
    for code in sorted(counts.pixels)[: 4 * MANY]:
        key = source.keys.key(code)
        share, files = 100 * counts.pixels[code] / total, counted(counts.files[code], "file")
        name = class_of.get(key, "?") or "no class"
        lines.append(f"  {source.keys.kind} {key}: {share:.3f} % of the pixels, in {files} -> {name}")
    if len(counts.pixels) > 4 * MANY:
        lines.append(f"  and {len(counts.pixels) - 4 * MANY} more")
    return lines
