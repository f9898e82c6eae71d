"""What the losses of segmentation have in common: labels that count, and sums over replicas.

Keras takes the mean of what `call` gives and divides it by the number of replicas, and the optimizer sums the gradients
of the replicas. So a loss of the global batch is right that gives each replica values whose mean over *all* replicas'
pixels is the loss. A scalar would not be divided: what is one number for the batch is given as [B, 1, 1], the same for
every image, which also adds up with values per pixel.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.layers.replicas import mean_over_replicas, replicas


class PixelLoss(keras.losses.Loss):
    """A loss of logits [B, h, w, K] against integer labels [B, h, w] of which one does not count.

    Args:
        ignore_label: label of pixels that do not count.
        name: name of the loss.

    Raises:
        ValueError: another reduction than Keras's mean.
    """

    def __init__(self, ignore_label: int = 255, name: str | None = None, **kwargs: str) -> None:
        super().__init__(name=name, **kwargs)
        check_reduction(self)
        self.ignore_label = int(ignore_label)

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"ignore_label": self.ignore_label}

    def _checked(self, y_true, y_pred):
        """(labels int64 [B, h, w], float32 or float64 logits [B, h, w, K], which pixels count: bool [B, h, w])."""
        if y_true.shape.rank != 3 or not y_true.shape.is_compatible_with(y_pred.shape[:-1]):
            raise ValueError(
                f"labels must be [B, h, w] and logits [B, h, w, K] of the same size, "
                f"got {tuple(y_true.shape)} and {tuple(y_pred.shape)}"
            )
        # int64: GPUs compare and reshape int32 in the host's memory.
        labels = tf.cast(y_true, tf.int64)
        logits = tf.cast(y_pred, tf.float64 if y_pred.dtype == tf.float64 else tf.float32)
        return labels, logits, labels != self.ignore_label


def check_reduction(loss: keras.losses.Loss) -> None:
    """Refuses what would not be a mean over all replicas' pixels.

    Raises:
        ValueError: another reduction than Keras's mean.
    """
    if loss.reduction != "sum_over_batch_size":
        raise ValueError(f"reduction must be 'sum_over_batch_size', the mean over pixels, got {loss.reduction!r}")


def checked_class_weights(class_weights: Sequence[float] | None) -> list[float] | None:
    """One weight per class as floats.

    Raises:
        ValueError: none, an infinite or a negative one, or nothing but zeros.
    """
    if class_weights is None:
        return None
    weights = [float(weight) for weight in class_weights]
    if not weights or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ValueError(f"class_weights must be finite, not negative and not all 0, got {weights}")
    return weights


def class_weight_vector(class_weights: Sequence[float], logits: tf.Tensor) -> tf.Tensor:
    """The weights as a tensor [K] of the logits' dtype.

    Raises:
        ValueError: another number of weights than there are classes.
    """
    if len(class_weights) != logits.shape[-1]:
        raise ValueError(f"class_weights has {len(class_weights)} entries for {logits.shape[-1]} classes")
    return tf.constant(class_weights, logits.dtype)


def one_hot(labels: tf.Tensor, counted: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[B, h, w, K] of the logits' dtype; zeros where a pixel does not count."""
    return tf.one_hot(tf.where(counted, labels, -1), logits.shape[-1], dtype=logits.dtype)


def mean_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """Differentiable mean over replicas; the value itself where there is one, and outside of them."""
    # Outside a replica Keras only asks for shapes.
    return value if replicas() == 1 else mean_over_replicas(value)


def for_every_image(value: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """[B, 1, 1] of a scalar."""
    return tf.broadcast_to(value, [tf.shape(labels)[0], 1, 1])
