"""Reads every example of a dataset once and reports what is wrong with it."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from psanet_tf.data.catalog import info_of
from psanet_tf.data.layouts import list_files
from psanet_tf.data.palettes import PaletteAgreement
from psanet_tf.data.pixels import damage, label_colors
from psanet_tf.data.readers import encoded_example, list_examples, read_example
from psanet_tf.progress import track

SHOWN = 20


@dataclasses.dataclass
class SplitReport:
    """What `check_split` found.

    Attributes:
        split: name of the split.
        num_examples: pictures listed.
        missing: paths that are listed and not there.
        problems: one text per example that cannot be used, naming the file.
        pixels: int64 [K], labelled pixels of each class.
        ignored_pixels: how many pixels have no class.
        smallest, largest: rows and columns of the pictures with the fewest and the most pixels; None if none can be
            read.
    """

    split: str
    num_examples: int
    missing: list[str]
    problems: list[str]
    pixels: np.ndarray
    ignored_pixels: int = 0
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None

    @property
    def is_sound(self):
        return not self.missing and not self.problems

    def text(self, info):
        """The report in words, at most `SHOWN` file names of each kind."""
        lines = [f"{self.split}: {self.num_examples} pictures"]
        if self.smallest:
            lines[0] += " of {}x{} to {}x{} pixels (rows x columns)".format(*self.smallest, *self.largest)
        lines += _shown("files are not there", self.missing) + _shown("examples cannot be used", self.problems)
        total = self.pixels.sum() + self.ignored_pixels
        if total:
            lines.append("  share of pixels by class:")
            width = max(len(name) for name in info.class_names)
            for name, count in zip(info.class_names, self.pixels, strict=True):
                lines.append(f"    {name:{width}} {100 * count / total:7.3f} %{'' if count else '  never occurs'}")
            lines.append(f"    {'(ignored)':{width}} {100 * self.ignored_pixels / total:7.3f} %")
        return "\n".join(lines)


def check_split(data, split, workers=None):
    """Reads every picture and label file of a split.

    Args:
        data: a `DataSection`.
        split: the dataset's own name of the split.
        workers: threads; default: processor cores.

    Returns:
        SplitReport.

    Raises:
        FileNotFoundError, ValueError: the layout itself is not there, so that nothing can be listed.
    """
    info = info_of(data)
    if data.format == "tfrecord":
        examples, missing = list_examples(data, split), []
    else:
        listing = list_files(data, split)
        examples, missing = listing.examples, [str(path) for path in listing.missing()]
    gone = set(missing)
    present = [item for item in examples if not gone & {str(item.image_path), str(item.label_path)}]
    report = SplitReport(split, len(examples), missing, [], np.zeros(info.num_classes, np.int64))
    palettes = PaletteAgreement()
    sizes = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for example, (problem, counts, size, colors) in zip(
            present,
            track(pool.map(lambda item: _examine(item, info), present), f"reading {split}", len(present)),
            strict=True,
        ):
            if problem:
                report.problems.append(problem)
                continue
            report.pixels += counts[: info.num_classes]
            report.ignored_pixels += int(counts[info.ignore_label])
            sizes.append(size)
            palettes.add(example.label_path, colors)
    if doubt := palettes.problem():
        report.problems.append(doubt)
    if sizes:
        sizes.sort(key=np.prod)
        report.smallest, report.largest = sizes[0], sizes[-1]
    return report


def _examine(example, info):
    """(problem or None, pixels by train id, size, colours of the label values or None)."""
    try:
        _, label = read_example(example, info)
        encoded_image, encoded_label = encoded_example(example)
        colors = label_colors(encoded_label, example.label_path)
        if found := damage(encoded_image):
            raise ValueError(
                f"{example.image_path}: damaged ({found}), from some place on its pixels are grey or wrong: get it "
                "again from its source, or leave it out"
            )
    except (ValueError, OSError) as error:
        return str(error), None, None, None
    counts = np.bincount(label.ravel(), minlength=256)
    return None, counts, label.shape, colors


def _shown(what, items):
    if not items:
        return []
    lines = [f"  {len(items)} {what}:"] + [f"    {item}" for item in items[:SHOWN]]
    return lines + ([f"    and {len(items) - SHOWN} more"] if len(items) > SHOWN else [])
