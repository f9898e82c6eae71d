"""Sheets of evaluated images: input, truth, prediction, and where they differ."""

from collections.abc import Iterable, Sequence

import numpy as np

from psanet_tf.data.layouts import Example
from psanet_tf.evaluation.results import EvaluationFolder, ImageRecord
from psanet_tf.visualization.colors import colorize
from psanet_tf.visualization.legend import legend_strip
from psanet_tf.visualization.sheet import image_sheet

COLUMNS = ("input", "truth", "prediction", "errors")
_WRONG, _RIGHT, _IGNORED = (214, 39, 40), (235, 235, 235), (180, 180, 200)


def worst_first(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """Records sorted by mIoU over the classes that occur in the image, lowest first."""
    return sorted(records, key=lambda record: (record.miou, record.name))


def image_row(folder: EvaluationFolder, example: Example) -> list[np.ndarray]:
    """The four images of `COLUMNS`, uint8 [H, W, 3] each, of one finished example of an `EvaluationFolder`."""
    image, label, prediction = folder.read(example)
    colors = folder.info.colors
    return [
        folder.info.images.picture(image),
        colorize(label, colors),
        colorize(prediction, colors),
        error_map(label, prediction),
    ]


def error_map(label: np.ndarray, prediction: np.ndarray, ignore_label: int = 255) -> np.ndarray:
    """uint8 [H, W, 3]: wrong pixels red, right ones light grey, ignored ones bluish grey."""
    image = np.empty((*label.shape, 3), np.uint8)
    image[:] = _RIGHT
    image[label != prediction] = _WRONG
    image[label == ignore_label] = _IGNORED
    return image


def evaluation_sheet(folder: EvaluationFolder, records: Sequence[ImageRecord], cell_width: int = 320) -> np.ndarray:
    """Contact sheet of some images of an evaluation, one row each, with a legend.

    Args:
        folder: `EvaluationFolder`.
        records: list of `ImageRecord`, at least one.
        cell_width: of each image, in pixels.

    Returns:
        uint8 [height, width, 3].
    """
    info, examples = folder.info, folder.examples()
    rows = [image_row(folder, examples[record.name]) for record in records]
    captions = [caption(record) for record in records]
    footer = legend_strip(shares(records), info.colors, info.class_names, 4 * (cell_width + 8) + 8)
    return image_sheet(rows, COLUMNS, captions, cell_width, footer)


def shares(records: Iterable[ImageRecord]) -> list[tuple[int, float]]:
    """[(class, share of labelled pixels), ...] over some records, for a legend; largest first."""
    pixels = sum(record.confusion for record in records).sum(axis=1)
    present = np.flatnonzero(pixels)
    order = present[np.argsort(-pixels[present], kind="stable")]
    return [(int(index), pixels[index] / pixels.sum()) for index in order]


def caption(record: ImageRecord) -> str:
    return f"{record.name}: mIoU {100 * record.miou:.1f}, pixel accuracy {100 * record.pixel_accuracy:.1f}"
