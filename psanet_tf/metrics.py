"""Scores of semantic segmentation: per-class IoU and accuracy, mIoU, mAcc and allAcc from a confusion matrix."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.keras_api import keras

# The public implementation's guard against an empty class: it scores 0 and counts in the mean.
_EPSILON = 1e-10
_BLOCK = 2**22
_PIXELS = 2**16


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """Scores of one set of images; all are fractions from 0 to 1.

    Attributes:
        iou: [K] float64, intersection over union of each class; 0 for a class that never occurs.
        accuracy: [K] float64, share of each class's pixels that were found (recall).
        miou: mean of `iou` over all K classes.
        macc: mean of `accuracy` over all K classes.
        allacc: share of all pixels that are right.
    """

    iou: np.ndarray
    accuracy: np.ndarray
    miou: float
    macc: float
    allacc: float


def confusion_matrix(
    predictions: np.ndarray, labels: np.ndarray, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Counts how often each class was taken for each.

    Args:
        predictions: integer array of class indices, any shape.
        labels: integer array of the same shape; pixels equal to `ignore_label` are left out.
        num_classes: K.
        ignore_label: the value of pixels that do not count.

    Returns:
        [K, K] int64; rows are true classes, columns predicted ones. Matrices of several images may be added.

    Raises:
        ValueError: the shapes differ, or a value that counts is not a class index.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions and labels must have one shape, got {predictions.shape} and {labels.shape}")
    for name, array in (("predictions", predictions), ("labels", labels)):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must be integers (class indices), got dtype {array.dtype}")
    predictions, labels = predictions.ravel(), labels.ravel()
    counts = np.zeros(num_classes**2, np.int64)
    # In blocks: bincount makes 8 bytes of every pixel.
    for start in range(0, labels.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        counts += _count_block(predictions[block], labels[block], num_classes, ignore_label)
    return counts.reshape(num_classes, num_classes)


def _count_block(predictions, labels, num_classes, ignore_label):
    valid = labels != ignore_label
    predictions, labels = predictions[valid].astype(np.int64), labels[valid].astype(np.int64)
    for name, array in (("predictions", predictions), ("labels", labels)):
        if array.size and (array.min() < 0 or array.max() >= num_classes):
            bad = array.min() if array.min() < 0 else array.max()
            raise ValueError(f"{name} hold {bad}, but there are {num_classes} classes, 0 to {num_classes - 1}")
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2)


def scores_from_confusion(confusion: np.ndarray) -> SegmentationScores:
    """Scores from a [K, K] confusion matrix (rows: true classes).

    The formulas are the public implementation's: with I, U, T a class's intersection, union and target pixels,
    IoU = I / (U + 1e-10) and accuracy = I / (T + 1e-10); a class that never occurs thus counts as 0 in the means.

    Args:
        confusion: [K, K] counts, as `confusion_matrix` gives them or summed over images.

    Returns:
        SegmentationScores.

    Raises:
        ValueError: `confusion` is not a square matrix.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix must be square, got shape {confusion.shape}")
    intersection = np.diagonal(confusion)
    target = confusion.sum(axis=1)
    union = target + confusion.sum(axis=0) - intersection
    iou = intersection / (union + _EPSILON)
    accuracy = intersection / (target + _EPSILON)
    return SegmentationScores(
        iou=iou,
        accuracy=accuracy,
        miou=float(iou.mean()),
        macc=float(accuracy.mean()),
        allacc=float(intersection.sum() / (target.sum() + _EPSILON)),
    )


def segmentation_scores(
    predictions: np.ndarray, labels: np.ndarray, num_classes: int, ignore_label: int = 255
) -> SegmentationScores:
    """Scores of predicted label maps against true ones; arguments and errors as of `confusion_matrix`.

    Returns:
        SegmentationScores.

    Example:
        >>> scores = segmentation_scores(np.array([[0, 1]]), np.array([[0, 0]]), num_classes=2)
        >>> round(scores.miou, 6), round(scores.allacc, 6)
        (0.25, 0.5)
    """
    return scores_from_confusion(confusion_matrix(predictions, labels, num_classes, ignore_label))


@keras.saving.register_keras_serializable(package="psanet_tf")
class MeanIoU(keras.metrics.Metric):
    """Mean intersection over union of logits against labels with an ignored value.

    The state is a [K, K] float64 confusion matrix (exact up to 2^53 pixels) that is summed over replicas, so the
    score under a `tf.distribute` strategy is that of all pixels together.

    Args:
        num_classes: K.
        ignore_label: pixels with this label do not count.
        name: the metric's name in logs.
        dtype: dtype of the result.

    Call arguments:
        y_true: [B, H, W] integer labels.
        y_pred: [B, H, W, K] logits, or probabilities.

    Raises:
        tf.errors.InvalidArgumentError: a label is neither a class nor `ignore_label`. In graphs, where a GPU would
            have to wait for the check at every step, the score becomes NaN instead.
    """

    def __init__(self, num_classes: int, ignore_label: int = 255, name: str = "miou", dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.confusion = self.add_weight(
            name="confusion", shape=(num_classes, num_classes), initializer="zeros", dtype="float64"
        )

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        if sample_weight is not None:
            raise ValueError(
                f"MeanIoU counts pixels and takes no sample_weight; give pixels that shall not count "
                f"the label {self.ignore_label}"
            )
        size, ignored = self.num_classes, self.ignore_label
        labels = tf.convert_to_tensor(y_true)
        if labels.dtype != tf.uint8 or size > 255 or not 0 <= ignored <= 255:
            # GPUs compare and count int32 in the host's memory.
            labels = tf.cast(labels, tf.int64)
        unknown = tf.reduce_any(((labels < 0) | (labels >= size)) & (labels != ignored))
        if tf.executing_eagerly() and unknown:
            raise tf.errors.InvalidArgumentError(
                None, None, f"labels must be 0 to {size - 1} or {ignored}; largest: {tf.reduce_max(labels)}"
            )
        counts = _count_pairs(labels, tf.argmax(y_pred, axis=-1), size)
        if 0 <= ignored < size:
            counts *= tf.one_hot(ignored, size, 0.0, 1.0, dtype=counts.dtype)[:, None]
        self.confusion.assign_add(tf.where(unknown, tf.constant(np.nan, counts.dtype), counts))

    def result(self) -> tf.Tensor:
        confusion = tf.convert_to_tensor(self.confusion)
        intersection = tf.linalg.diag_part(confusion)
        union = tf.reduce_sum(confusion, axis=0) + tf.reduce_sum(confusion, axis=1) - intersection
        return tf.cast(tf.reduce_mean(intersection / (union + _EPSILON)), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes, "ignore_label": self.ignore_label}


def _count_pairs(labels, predictions, num_classes):
    """How often each class is taken for each; labels that are no class count nowhere.

    As matrix products of one-hot vectors, which every device computes in the same way each time: the kernels for
    counting (`tf.math.bincount`) add in an order of their own on GPUs, and refuse where that is forbidden. Blocks keep
    the vectors small and the float32 sums exact.

    Args:
        labels: [B, H, W] uint8 or int64.
        predictions: [B, H, W] int64.
        num_classes: K.

    Returns:
        [K, K] float64.
    """
    pixels = tf.size(labels)
    blocks = -(-pixels // _PIXELS)
    rest = [blocks * _PIXELS - pixels]
    # Put together rather than padded, for which GPUs have no kernel of int64. A prediction of -1 counts nowhere.
    labels, predictions = (
        tf.reshape(tf.concat([tf.reshape(values, [-1]), tf.fill(rest, filler)], 0), [-1, _PIXELS])
        for values, filler in ((labels, tf.constant(0, labels.dtype)), (predictions, tf.constant(-1, tf.int64)))
    )

    def add_block(block, counts):
        true, predicted = (tf.one_hot(classes[block], num_classes) for classes in (labels, predictions))
        return block + 1, counts + tf.cast(tf.matmul(true, predicted, transpose_a=True), tf.float64)

    start = (tf.zeros_like(blocks), tf.zeros([num_classes, num_classes], tf.float64))
    return tf.while_loop(lambda block, counts: block < blocks, add_block, start)[1]
