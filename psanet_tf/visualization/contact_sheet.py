"""A page to look a dataset over: what is wrong with it, its classes and sizes, and images under their labels."""

import collections
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from psanet_tf.visualization.overlay import class_shares, overlay
from psanet_tf.visualization.pages import data_uri, fitted, write_page

if TYPE_CHECKING:
    from psanet_tf.data.catalog import DatasetInfo
    from psanet_tf.data.checking import SplitReport

_THUMBNAIL_WIDTH = 360
_JPEG_QUALITY = 82
_MAX_SIZES = 8
_MAX_CLASSES = 10  # in the legend of one image
_MAX_FILES = 50


def write_contact_sheet(
    path: str | os.PathLike,
    title: str,
    reports: Sequence["SplitReport"],
    info: "DatasetInfo",
    samples: Sequence[Sequence[tuple[str, np.ndarray, np.ndarray]]],
    warnings: Sequence[str] = (),
) -> None:
    """Writes the page; it is one file, and needs nothing else.

    Args:
        path: where to.
        title: its heading.
        reports: list of `psanet_tf.data.checking.SplitReport`.
        info: DatasetInfo.
        samples: for each report, a list of (name, uint8 [H, W, 3] image, uint8 [H, W] train ids).
        warnings: texts about the dataset as a whole, e.g. on its scale.
    """
    colors = info.colors.tolist()
    write_page(
        path,
        "check.html.j2",
        title=title,
        num_problems=sum(len(report.problems) for report in reports),
        warnings=warnings,
        max_files=_MAX_FILES,
        splits=[
            {
                "name": report.split,
                "cards": _cards(report),
                "findings": report.problems + report.notes,
                "sizes": _sizes(report.sizes),
                "samples": [_sample(sample, info) for sample in images],
            }
            for report, images in zip(reports, samples, strict=True)
        ],
        classes=[
            {"name": name, "color": colors[index], "cells": [_class_cell(report, index) for report in reports]}
            for index, name in enumerate(info.class_names)
        ],
        ignored=[_share(report.ignored_pixels, report) for report in reports],
    )


def _cards(report):
    sizes = np.array(report.sizes, int).reshape(-1, 2)
    heights, widths = sizes.T
    shapes = {
        "landscape": (widths > heights).sum(),
        "portrait": (widths < heights).sum(),
        "square": (widths == heights).sum(),
        "turned by their orientation tag": report.num_turned,
    }
    cards = [("images listed", len(report.examples)), ("with usable labels", len(report.sizes))]
    cards += [(name, int(count)) for name, count in shapes.items() if count]
    if len(sizes):
        cards.append(("median long side, pixels", int(np.median(sizes.max(axis=1)))))
    return [{"name": name, "value": value} for name, value in cards]


def _sizes(sizes):
    """Bars of the most frequent sizes, rows x columns."""
    common = collections.Counter(tuple(size) for size in sizes).most_common()
    rows = [(f"{height} x {width}", count) for (height, width), count in common[:_MAX_SIZES]]
    if len(common) > _MAX_SIZES:
        rows.append((f"{len(common) - _MAX_SIZES} other sizes", sum(count for _, count in common[_MAX_SIZES:])))
    largest = max((count for _, count in rows), default=1)
    return [{"size": size, "count": count, "width": 100 * count / largest} for size, count in rows]


def _share(pixels, report):
    return float(pixels / max(1, report.pixels.sum() + report.ignored_pixels))


def _class_cell(report, index):
    pixels = int(report.pixels[index])
    return {
        "share": _share(pixels, report),
        # The most frequent class's bar fills its cell.
        "width": 100 * pixels / max(1, int(report.pixels.max())),
        "images": int(report.images[index]),
        "absent": pixels == 0,
    }


def _sample(sample, info):
    name, image, labels = sample
    shares = class_shares(labels)
    image, labels = fitted(image, _THUMBNAIL_WIDTH), fitted(labels, _THUMBNAIL_WIDTH, flat=True)
    return {
        "name": name,
        "image": data_uri(image, _JPEG_QUALITY),
        "overlay": data_uri(overlay(image, labels, info.colors), _JPEG_QUALITY),
        "width": image.shape[1],
        "height": image.shape[0],
        "classes": [
            {"name": info.class_names[index], "color": info.colors[index].tolist(), "percent": 100 * share}
            for index, share in shares[:_MAX_CLASSES]
        ],
        "more_classes": max(0, len(shares) - _MAX_CLASSES),
    }
