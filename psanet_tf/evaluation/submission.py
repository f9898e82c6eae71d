"""Predictions in the form in which the datasets' test servers take them."""

import os

import numpy as np

from psanet_tf.data.catalog import DatasetInfo, label_value_table
from psanet_tf.visualization.colors import save_label_png


def save_submission(path: str | os.PathLike, labels: np.ndarray, info: DatasetInfo) -> None:
    """Writes a label map with the values of the dataset's own label files.

    ADE20K: grey PNG, class 0 as 1. Cityscapes: grey PNG of its label ids (7, 8, 11, ...). PASCAL VOC: palette PNG of
    class indices. Other datasets: grey PNG of the values that their label files have.

    Args:
        path: where to.
        labels: integer [H, W], train ids.
        info: DatasetInfo.
    """
    values = submission_values(info)
    if info.name == "voc2012":
        save_label_png(path, labels, info.colors)
    else:
        save_label_png(path, values[np.asarray(labels)])


def submission_values(info: DatasetInfo) -> np.ndarray:
    """uint8 [K]: the value in the dataset's label files of each class."""
    table = label_value_table(info)
    return np.array([np.flatnonzero(table == index)[0] for index in range(info.num_classes)], np.uint8)
