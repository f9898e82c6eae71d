"""Scores of an evaluation as JSON, CSV, and a table to read."""

import csv
import functools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.evaluation.boundary import boundary_iou
from psanet_tf.evaluation.results import SCORES_FILE, EvaluationFolder, ImageRecord
from psanet_tf.files import atomic_file
from psanet_tf.metrics import scores_from_confusion
from psanet_tf.reliability import NUM_BINS, Reliability


def summarize(
    records: Sequence[ImageRecord], info: DatasetInfo, failures: Mapping[str, str] | Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """Scores of all images together.

    Args:
        records: list of `ImageRecord`, at least one.
        info: DatasetInfo.
        failures: {name: message} of images that could not be read.

    Returns:
        dict for JSON: ``miou``, ``macc``, ``allacc``, ``boundary_miou``, ``expected_calibration_error`` (None where the
        confidence is not known), ``images``, ``failed``, and ``classes``, a list of ``name``, ``iou``, ``accuracy``,
        ``boundary_iou``, ``pixels`` (in the labels).
    """
    confusion = sum(record.confusion for record in records)
    scores = scores_from_confusion(confusion)
    boundary = boundary_iou(sum(record.boundary for record in records))
    reliability = summed_reliability(records)
    return {
        "miou": scores.miou,
        "macc": scores.macc,
        "allacc": scores.allacc,
        "boundary_miou": float(boundary.mean()),
        "expected_calibration_error": reliability and reliability.expected_calibration_error,
        "images": len(records),
        "failed": dict(failures),
        "classes": [
            {
                "name": name,
                "iou": float(scores.iou[index]),
                "accuracy": float(scores.accuracy[index]),
                "boundary_iou": float(boundary[index]),
                "pixels": int(confusion[index].sum()),
            }
            for index, name in enumerate(info.class_names)
        ],
    }


def summed_reliability(records: Sequence[ImageRecord]) -> Reliability | None:
    """That of all images together; None where that of one is not known."""
    found = [record.reliability for record in records]
    return None if None in found else functools.reduce(operator.add, found)


def write_tables(folder: EvaluationFolder, summary: Mapping[str, Any], records: Sequence[ImageRecord]) -> None:
    """Writes ``scores.json`` and tables as CSV into an `EvaluationFolder`.

    ``classes.csv``, ``images.csv``, ``confusion.csv``, and ``reliability.csv`` where the confidence is known.
    """
    _write_csv(
        folder.path / "classes.csv",
        ["class", "iou", "accuracy", "boundary_iou", "pixels"],
        [list(values.values()) for values in summary["classes"]],
    )
    _write_csv(
        folder.path / "images.csv",
        ["name", "height", "width", "miou_of_present_classes", "pixel_accuracy"],
        [[record.name, *record.size, record.miou, record.pixel_accuracy] for record in records],
    )
    names = [values["name"] for values in summary["classes"]]
    confusion = sum(record.confusion for record in records)
    _write_csv(
        folder.path / "confusion.csv",
        ["true class \\ predicted", *names],
        [[name, *row] for name, row in zip(names, np.asarray(confusion).tolist(), strict=True)],
    )
    if (reliability := summed_reliability(records)) is not None:
        columns = (reliability.pixels, reliability.mean_confidence, reliability.accuracy)
        edges = [(index / NUM_BINS, (index + 1) / NUM_BINS) for index in range(NUM_BINS)]
        _write_csv(
            folder.path / "reliability.csv",
            ["above", "up_to", "pixels", "mean_confidence", "accuracy"],
            [[*edge, *row] for edge, *row in zip(edges, *(column.tolist() for column in columns), strict=True)],
        )
    # Last: its presence says that the evaluation is complete.
    with atomic_file(folder.path / SCORES_FILE) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")


def print_table(summary: Mapping[str, Any]) -> None:
    """Prints per-class and mean scores in percent on standard output."""
    table = Table("class", "IoU", "accuracy", "boundary IoU", title=f"{summary['images']} images, percent")
    for column in table.columns[1:]:
        column.justify = "right"
    for values in summary["classes"]:
        table.add_row(values["name"], *(_percent(values[key]) for key in ("iou", "accuracy", "boundary_iou")))
    table.add_section()
    table.add_row("mean", *(_percent(summary[key]) for key in ("miou", "macc", "boundary_miou")))
    console = Console()
    console.print(table)
    console.print(score_line(summary), highlight=False)
    if summary["expected_calibration_error"] is not None:
        error = _percent(summary["expected_calibration_error"])
        console.print(f"expected calibration error {error}", highlight=False)


def score_line(summary: Mapping[str, Any]) -> str:
    """ "mIoU 43.12 / mAcc 53.90 / allAcc 81.20", in percent as the literature has it."""
    return " / ".join(f"{name} {_percent(summary[name.lower()])}" for name in ("mIoU", "mAcc", "allAcc"))


def _percent(value):
    return f"{100 * value:.2f}"


def _write_csv(path, header, rows):
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
