"""Boundary IoU (Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021)."""

import math

import numpy as np
import tensorflow as tf

_EPSILON = 1e-10
_WIDTH_OF_DIAGONAL = 0.02  # the paper's, section 5


def boundary_counts(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore_label: int = 255, width: int | None = None
) -> np.ndarray:
    """Pixels of each class along its own edges, in truth, prediction and both.

    The boundary region of a class is what an erosion by `width` pixels takes away from its mask; the edge of the
    image counts as an edge. Ignored pixels take no part: the prediction is ignored there too, so that the edge of
    an ignored region is the same in both.

    Args:
        prediction: integer [H, W].
        label: integer [H, W].
        num_classes: K.
        ignore_label: value of pixels that do not count.
        width: in pixels; default 2 % of the image's diagonal, at least 1.

    Returns:
        int64 [2, K]: intersection and union of the boundary regions. Counts of several images may be added.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.shape != label.shape or label.ndim != 2:
        raise ValueError(f"prediction and label must be [H, W] alike, got {prediction.shape} and {label.shape}")
    if width is None:
        width = max(1, round(_WIDTH_OF_DIAGONAL * math.hypot(*label.shape)))
    ignored = label == ignore_label
    prediction = np.where(ignored, ignore_label, prediction)
    in_truth = _near_edge(label, width) & ~ignored
    in_prediction = _near_edge(prediction, width) & ~ignored
    truth = np.bincount(label[in_truth], minlength=num_classes)
    predicted = np.bincount(prediction[in_prediction], minlength=num_classes)
    both = np.bincount(label[in_truth & in_prediction & (label == prediction)], minlength=num_classes)
    return np.stack([both, truth + predicted - both]).astype(np.int64)


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """[K] float64 from summed `boundary_counts`; 0 for a class that never occurs, as in the other scores."""
    return counts[0] / (counts[1] + _EPSILON)


def _near_edge(labels, width):
    """bool [H, W]: whether the square of 2 * width + 1 pixels around a pixel leaves the pixel's own region.

    That is what erosion with a 3x3 square, `width` times, takes away from the mask of each class, for all
    classes at once.
    """
    values = tf.constant(labels, tf.float32)[None, :, :, None]
    # -1 is no class: the image's edge differs from everything.
    values = tf.pad(values, [[0, 0], [width, width], [width, width], [0, 0]], constant_values=-1)
    largest, smallest = values, -values
    for window in ((2 * width + 1, 1), (1, 2 * width + 1)):
        largest = tf.nn.max_pool2d(largest, window, 1, "VALID")
        smallest = tf.nn.max_pool2d(smallest, window, 1, "VALID")
    return (largest != -smallest).numpy()[0, :, :, 0]
