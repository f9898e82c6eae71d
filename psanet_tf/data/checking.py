"""Reads every example of a dataset once and reports what is wrong with it."""

import dataclasses
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from psanet_tf.config import DataSection
from psanet_tf.cores import usable_cores
from psanet_tf.data import headers
from psanet_tf.data.catalog import OUT_OF_RANGE, DatasetInfo, info_of, label_value_table
from psanet_tf.data.duplicates import pixel_digest, shared_images
from psanet_tf.data.findings import Finding, counted
from psanet_tf.data.frames import num_frames
from psanet_tf.data.label_findings import ValueCounts, label_findings
from psanet_tf.data.layouts import Example, Listing, list_files
from psanet_tf.data.near_names import instead_of
from psanet_tf.data.palettes import PaletteAgreement
from psanet_tf.data.pixels import damage, label_colors
from psanet_tf.data.readers import decode_example, encoded_example, holds_train_ids, list_examples
from psanet_tf.data.records import RecordExample
from psanet_tf.data.statistics import Moments, combined
from psanet_tf.data.unreadable_findings import unreadable_findings
from psanet_tf.progress import track

_MAX_SAMPLES = 12
_SHOWN_SUGGESTIONS = 5


@dataclasses.dataclass
class SplitReport:
    """What `check_splits` found in one split.

    Attributes:
        split: name of the split.
        examples: all that are listed.
        findings: problems and notes.
        pixels: int64 [K], labelled pixels of each class.
        images: int64 [K], how many images show each class.
        ignored_pixels: how many pixels have no class.
        sizes: rows and columns of every image that can be used.
        num_turned: images with an orientation tag that turns them.
        samples: usable examples that show as many classes as possible, for a look at them.
        statistics: mean and standard deviation of each channel of all images that can be read, where they were asked
            for.
        digests: {path of the image, of records with its name: `pixel_digest`} of all that can be read.
    """

    split: str
    examples: list[Example]
    findings: list[Finding]
    pixels: np.ndarray
    images: np.ndarray
    ignored_pixels: int = 0
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    num_turned: int = 0
    samples: list[Example] = dataclasses.field(default_factory=list)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    digests: dict[Path, bytes] = dataclasses.field(default_factory=dict)

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_problem]

    def text(self, info: DatasetInfo) -> str:
        """The report in words."""
        lines = [f"{self.split}: {counted(len(self.examples), 'image')}"]
        if self.sizes:
            ordered = sorted(self.sizes, key=np.prod)
            lines[0] += " of {}x{} to {}x{} pixels (rows x columns)".format(*ordered[0], *ordered[-1])
        for finding in self.problems + self.notes:
            lines += finding.lines()
        total = self.pixels.sum() + self.ignored_pixels
        if total:
            lines.append("  share of pixels, and images, by class:")
            width = max(len(name) for name in info.class_names)
            for name, pixels, images in zip(info.class_names, self.pixels, self.images, strict=True):
                shown_in = f"{images:7}" if pixels else "  never occurs"
                lines.append(f"    {name:{width}} {100 * pixels / total:7.3f} % {shown_in}")
            lines.append(f"    {'(ignored)':{width}} {100 * self.ignored_pixels / total:7.3f} %")
        return "\n".join(lines)


def check_splits(
    data: DataSection, splits: Iterable[str], workers: int | None = None, statistics: bool = False
) -> list[SplitReport]:
    """Reads every image and label file of some splits.

    Args:
        data: a `DataSection`.
        splits: the dataset's own names of the splits.
        workers: threads; default: processor cores.
        statistics: whether to sum up the values of the images, too.

    Returns:
        list of SplitReport, one per split.

    Raises:
        FileNotFoundError, ValueError: the layout of a split is not there or cannot be used, so that nothing can be
            listed; before anything is read.
    """
    info = info_of(data)
    splits = list(dict.fromkeys(splits))
    listings = [
        Listing(list_examples(data, split)) if data.format == "tfrecord" else list_files(data, split)
        for split in splits
    ]
    reports = [
        _check(split, listing, info, workers, statistics) for split, listing in zip(splits, listings, strict=True)
    ]
    _note_shared_images(reports)
    return reports


def _check(split, listing, info, workers, statistics):
    report = SplitReport(
        split, listing.examples, [], np.zeros(info.num_classes, np.int64), np.zeros(info.num_classes, np.int64)
    )
    if not listing.examples:
        report.findings.append(Finding("the split holds no images"))
    missing = listing.missing()
    if missing:
        where = [f"{path}{instead_of(path)}" for path in missing[:_SHOWN_SUGGESTIONS]] + missing[_SHOWN_SUGGESTIONS:]
        verb = "is" if len(missing) == 1 else "are"
        what = f"{counted(len(missing), 'file')} {verb} not there"
        report.findings.append(Finding(what, listing.advice, tuple(map(str, where))))
    gone = set(missing)
    present = [example for example in listing.examples if not gone & {example.image_path, example.label_path}]
    tally = _Tally(report, info)
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        results = pool.map(lambda example: _examine(example, info, statistics), present)
        results = track(results, f"reading {split}", len(present))
        for example, result in zip(present, results, strict=True):
            tally.add(example, result)
    tally.conclude(listing)
    report.findings += listing.findings
    return report


@dataclasses.dataclass(frozen=True)
class _Facts:
    value_counts: np.ndarray  # int [256]
    size: tuple[int, int]
    is_turned: bool
    damage: str | None
    num_frames: int
    colors: dict | None
    moments: Moments | None
    loses_bits: bool
    digest: bytes


def _examine(example, info, statistics):
    """_Facts, or the text of the error if the example cannot be read."""
    images = info.images
    # Where colours are read, the index says nothing.
    by_index = info.label_rule is None or not info.label_rule.colors
    try:
        encoded_image, encoded_label = encoded_example(example)
        image, values = decode_example(example, encoded_image, encoded_label, info)
        return _Facts(
            np.bincount(values.ravel(), minlength=256),
            image.shape[:2],
            headers.orientation(encoded_image) != headers.UPRIGHT,
            damage(encoded_image),
            # The pages of other images may be their channels.
            num_frames(io.BytesIO(encoded_image)) if images.is_photograph else 1,
            label_colors(encoded_label, example.label_path) if by_index else None,
            Moments.of(image) if statistics else None,
            images.is_photograph and headers.is_png(encoded_image) and headers.png_kind(encoded_image)[0] == 16,
            pixel_digest(image),
        )
    except (ValueError, OSError) as error:
        return str(error)


class _Tally:
    """Sums what is found in the examples of one split up into its report."""

    def __init__(self, report, info):
        self.report, self.info = report, info
        self.table = None
        self.values = ValueCounts()
        self.palettes = PaletteAgreement()
        self.unreadable, self.damaged, self.frames, self.unlabelled, self.deep = [], [], [], [], []
        self.usable = []
        self.moments = None
        # For each class, the example that shows most of it.
        self.most = np.zeros(info.num_classes, np.int64)
        self.best = [None] * info.num_classes

    def add(self, example, result):
        if isinstance(result, str):
            self.unreadable.append((example, result))
            return
        report, info = self.report, self.info
        record = isinstance(example, RecordExample)
        report.digests[example.image_path / example.name if record else example.image_path] = result.digest
        self.moments = combined(item for item in (self.moments, result.moments) if item is not None)
        if result.damage:
            self.damaged.append(f"{example.image_path}: {result.damage}")
        if result.num_frames > 1:
            self.frames.append(f"{example.image_path}: {result.num_frames} frames")
        if result.loses_bits:
            self.deep.append(str(example.image_path))
        self.palettes.add(example.label_path, result.colors)
        self.values.add(example.label_path, result.value_counts)
        if self.table is None:
            self.table = label_value_table(info, train_ids=holds_train_ids(example))
        report.sizes.append(result.size)
        report.num_turned += result.is_turned
        present = result.value_counts > 0
        if (self.table[present] == OUT_OF_RANGE).any():
            return
        counts = np.bincount(self.table, weights=result.value_counts, minlength=256).astype(np.int64)
        pixels = counts[: info.num_classes]
        report.pixels += pixels
        report.images += pixels > 0
        report.ignored_pixels += int(counts[info.ignore_label])
        if not pixels.any():
            self.unlabelled.append(str(example.label_path))
        for index in np.flatnonzero(pixels > self.most):
            self.most[index], self.best[index] = pixels[index], example
        self.usable.append(example)

    def conclude(self, listing):
        report = self.report
        report.findings += unreadable_findings(self.unreadable, len(report.examples))
        if self.damaged:
            its = "its" if len(self.damaged) == 1 else "their"
            what = f"{counted(len(self.damaged), 'image')} damaged: from some place on {its} pixels are grey or wrong"
            report.findings.append(
                Finding(what, "get such images again from their source, or leave them out", tuple(self.damaged))
            )
        if doubt := self.palettes.problem():
            what, _, advice = doubt.partition(". ")
            report.findings.append(Finding(what, advice))
        report.findings += label_findings(self.values, report.pixels, self.info, self.table, listing.advice)
        if self.unlabelled and report.pixels.any():
            what = f"{counted(len(self.unlabelled), 'label file')} without a single pixel that has a class"
            report.findings.append(Finding(what, "", tuple(self.unlabelled), is_problem=False))
        if self.frames:
            what = f"of {counted(len(self.frames), 'image')} with several frames or pages the first one is taken"
            report.findings.append(Finding(what, "", tuple(self.frames), is_problem=False))
        if self.deep:
            what = f"of {counted(len(self.deep), 'image')} with 16 bits the upper 8 are read"
            advice = "where the others matter set data.dtype=uint16, and data.channels=1 for grey"
            report.findings.append(Finding(what, advice, tuple(self.deep), is_problem=False))
        report.samples = self._samples()
        if self.moments is not None:
            try:
                report.statistics = self.moments.statistics(f"the images of split {report.split!r}")
            except ValueError as error:
                report.findings.append(Finding(*map(str.strip, str(error).split(":", 1))))

    def _samples(self):
        """Rare classes first, then evenly over the split; in the order of the split."""
        rare_first = np.argsort(self.report.images, kind="stable")
        chosen = list(dict.fromkeys(self.best[index] for index in rare_first if self.best[index]))[:_MAX_SAMPLES]
        spread = np.linspace(0, len(self.usable) - 1, min(_MAX_SAMPLES, len(self.usable))).round().astype(int)
        chosen = list(dict.fromkeys(chosen + [self.usable[index] for index in spread]))[:_MAX_SAMPLES]
        return sorted(chosen, key=lambda example: example.name)


def _note_shared_images(reports):
    for index, report in enumerate(reports):
        for other in reports[:index]:
            finding = shared_images(report.split, report.digests, other.split, other.digests)
            if finding is not None:
                report.findings.append(finding)
