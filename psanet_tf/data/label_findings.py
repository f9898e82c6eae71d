"""What the values in a split's label files say about the labels: judged by all files together."""

import dataclasses
import os

import numpy as np

from psanet_tf.data.catalog import OUT_OF_RANGE, DatasetInfo
from psanet_tf.data.findings import SHOWN, Finding, counted

_SHOWN_VALUES = 12
_SMOOTHED = 20  # more values than this that are no class come from an image or from smoothing


@dataclasses.dataclass
class ValueCounts:
    """How often each value occurs in the label files of a split.

    Attributes:
        pixels: int64 [256].
        files: int64 [256].
        first: {value: the first `SHOWN` files it occurs in}.
    """

    pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    files: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    first: dict[int, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, path: str | os.PathLike, counts: np.ndarray) -> None:
        """Takes in one file's counts, int [256]."""
        self.pixels += counts
        self.files += counts > 0
        for value in np.flatnonzero(counts).tolist():
            names = self.first.setdefault(value, [])
            if len(names) < SHOWN:
                names.append(str(path))

    def present(self) -> list[int]:
        """The values that occur, sorted."""
        return np.flatnonzero(self.pixels).tolist()


def label_findings(
    values: ValueCounts, class_pixels: np.ndarray, info: DatasetInfo, table: np.ndarray | None, advice: str = ""
) -> list[Finding]:
    """Values that are no class, labels that start at 1, black and white masks, no labels at all, absent classes.

    Args:
        values: ValueCounts.
        class_pixels: int [K], labelled pixels of each class in the files that can be used.
        info: DatasetInfo.
        table: from `label_value_table`; None where there are no values.
        advice: where no labels are expected, such as in the test split of a challenge.

    Returns:
        list of Finding.
    """
    present = values.present()
    if not present:
        return []
    wrong = [value for value in present if table[value] == OUT_OF_RANGE]
    if wrong:
        return [_out_of_range(values, wrong, info)]
    own_rule = info.name == "custom" and info.label_rule is None
    if own_rule and present == [0, 255] and info.num_classes > 1:
        return [_black_and_white(values, info)]
    if not class_pixels.any():
        return [_nothing_labelled(present, info, advice)]
    absent = np.flatnonzero(class_pixels == 0).tolist()
    return [_absent_classes(absent, present, info)] if absent else []


def _out_of_range(values, wrong, info):
    rare_first = sorted(wrong, key=lambda value: values.files[value])
    names = dict.fromkeys(name for value in rare_first for name in values.first[value])
    shown = [f"{value} (in {counted(values.files[value], 'file')})" for value in wrong[:_SHOWN_VALUES]]
    more = f", and {len(wrong) - _SHOWN_VALUES} more" if len(wrong) > _SHOWN_VALUES else ""
    what = f"label files hold values that are no class: {', '.join(shown)}{more}"
    return Finding(what, _advice_out_of_range(values.present(), wrong, info), tuple(list(names)[:SHOWN]))


def _advice_out_of_range(present, wrong, info):
    if len(wrong) > _SMOOTHED:
        return (
            "so many values come from resizing with smoothing, from JPEG, or from files that are no labels: make them "
            "anew, each pixel the number of its class"
        )
    if info.name != "custom":
        return f"these are not labels as {info.name} has them: check data.dataset, or where the files are from"
    if info.label_rule is not None:
        return (
            f"the values of the classes are {_shown(info.label_rule.class_values())} (data.label_values or "
            "data.label_map): add a class, list in data.ignore_label what means none, or make the labels anew"
        )
    count = info.num_classes
    classes = [value for value in present if value not in (0, 255)]
    from_one = list(range(1, count + 1))
    if classes[-1] == count:
        if 0 not in present:
            return (
                f"labels seem to start at 1: set data.label_values={_shown(from_one)} (0 then means no class), or "
                "lower them by one"
            )
        return (
            f"class_names has {counted(count, 'name')}, the labels go from 0 to {count}: if 0 means no class, set "
            f"data.label_values={_shown(from_one)}; if it is a class, write its name before the others"
        )
    for guess in ([value for value in present if value != 255], classes):
        if len(guess) == count:
            return f"if these are the classes in the order of class_names, set data.label_values={_shown(guess)}"
    return (
        f"class_names has {counted(count, 'name')}, for values 0..{count - 1}: add the missing ones, or list the value "
        "of each class in data.label_values, and the values of none in data.ignore_label"
    )


def _black_and_white(values, info):
    share = 100 * values.pixels[255] / values.pixels.sum()
    what = (
        f"all masks are black and white (0 and 255), and 255 means no class: {share:.0f} % of the pixels do not count"
    )
    advice = (
        f"set data.label_values=[0,255]: black is {info.class_names[0]!r}, white is {info.class_names[1]!r}"
        if info.num_classes == 2
        else f"give each of the {info.num_classes} classes a value of its own"
    )
    return Finding(what, advice, tuple(values.first[255]))


def _nothing_labelled(present, info, advice):
    what = f"no pixel of the split has a class, all values in its labels {_shown(present)} mean none"
    if not advice and info.name == "custom":
        advice = "classes are 0, 1, 2, ... in the order of class_names, or as data.label_values lists them"
    return Finding(what, advice or f"these are not labels as {info.name} has them")


def _absent_classes(absent, present, info):
    names = ", ".join(info.class_names[index] for index in absent[:_SHOWN_VALUES])
    more = f", and {len(absent) - _SHOWN_VALUES} more" if len(absent) > _SHOWN_VALUES else ""
    verb = "occurs" if len(absent) == 1 else "occur"
    what = f"{counted(len(absent), 'class', 'classes')} never {verb}: {names}{more}"
    advice = "such a class counts as 0 in the mean scores: "
    if info.name != "custom":
        return Finding(what, advice + "are all images of the dataset there?")
    if info.label_rule is not None and info.label_rule.colors:
        return Finding(what, advice + "add images that show it, or leave it out of class_names and data.label_palette")
    advice += "add images that show it, or leave it out of class_names and set data.label_values to the others' values"
    if info.label_rule is None and 0 not in present:
        start = list(range(1, info.num_classes + 1))
        advice += f"; if the labels start at 1, set data.label_values={_shown(start)}"
    return Finding(what, advice)


def _shown(values):
    """Values as --set takes them from a shell."""
    values = [str(value) for value in values]
    return f"[{','.join(values if len(values) <= _SHOWN_VALUES else [*values[:3], '...', values[-1]])}]"
