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
    """A loss of logits against integer labels of which one does not count.

    Args:
        ignore_label: label of pixels that do not count.
        name: name of the loss.

    Call arguments:
        y_true: integer labels [B, h, w] of any dtype: 0 to K - 1, or `ignore_label`.
        y_pred: logits [B, h, w, K].

    Returns:
        Scalar float32. Called through Keras inside a replica, it is scaled as Keras scales any loss. All replicas must
        hold equally many pixels.

    Raises:
        ValueError: another reduction than Keras's mean, or labels and logits of different sizes.
        tf.errors.InvalidArgumentError: a label that is no class. In graphs, where a GPU would have to wait for the
            check at every step, the loss becomes NaN instead (cross entropy and focal raise there, too, on CPUs).
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
        if tf.executing_eagerly() and self._any_without_class(labels, logits):
            raise tf.errors.InvalidArgumentError(
                None,
                None,
                f"labels must be 0 to {logits.shape[-1] - 1} or {self.ignore_label}; they go from "
                f"{tf.reduce_min(labels)} to {tf.reduce_max(labels)}",
            )
        return labels, logits, labels != self.ignore_label

    def _for_every_image(self, value, labels, logits):
        """[B, 1, 1] of a scalar; NaN if a label is no class."""
        nan = tf.constant(math.nan, value.dtype)
        value = tf.where(self._any_without_class(labels, logits), nan, value)
        return tf.broadcast_to(value, [tf.shape(labels)[0], 1, 1])

    def _any_without_class(self, labels, logits):
        return tf.reduce_any((labels != self.ignore_label) & ((labels < 0) | (labels >= logits.shape[-1])))


class ClassWeightedLoss(PixelLoss):
    """Mean over the labelled pixels of the global batch of what each pixel's logits make of its own label.

    The mean is over the labelled pixels of *all* replicas, so that two replicas with unequally many ignored pixels give
    the gradient of one device with the whole batch: per-pixel values are divided by the all-reduced mean weight of a
    pixel; Keras's `sum_over_batch_size` reduction then divides by the local number of pixels and by the number of
    replicas, and the optimizer sums over replicas. A batch without any labelled pixel has loss 0.

    Args:
        ignore_label: label of pixels that do not count.
        class_weights: one weight per class, or None for 1. The mean is weighted: the sum of weighted losses over the
            sum of weights, as in `torch.nn.CrossEntropyLoss`.
        name: name of the loss.

    Raises:
        ValueError: weights that are negative, not finite or all 0, or not as many as classes; see also `PixelLoss`.
    """

    def __init__(
        self,
        ignore_label: int = 255,
        class_weights: Sequence[float] | None = None,
        name: str | None = None,
        **kwargs: str,
    ) -> None:
        super().__init__(ignore_label, name=name, **kwargs)
        self.class_weights = _checked_class_weights(class_weights)

    def get_config(self) -> dict[str, object]:
        return super().get_config() | {"class_weights": self.class_weights}

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels, logits, valid = self._checked(y_true, y_pred)
        # What does not count may be anything; a class is what TensorFlow's operations take.
        labels = tf.where(valid, labels, 0)
        weights = tf.ones((), logits.dtype)
        if self.class_weights is not None:
            weights = tf.gather(self._class_weight_vector(logits), labels)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        losses, counted = self._weighted_losses(entropies, weights, logits, valid)
        counted = tf.cast(counted, logits.dtype)
        return tf.math.divide_no_nan(losses * counted, mean_of_replicas(tf.reduce_mean(weights * counted)))

    def _weighted_losses(self, entropies, weights, logits, valid):
        """Losses of the pixels [B, h, w], weighted, and which pixels count, bool [B, h, w].

        Args:
            entropies: [B, h, w], cross entropies with the labels.
            weights: of each pixel's class, [B, h, w] or a scalar.
            logits: [B, h, w, K].
            valid: bool [B, h, w], which pixels carry a label.
        """
        raise NotImplementedError

    def _class_weight_vector(self, logits):
        if len(self.class_weights) != logits.shape[-1]:
            raise ValueError(f"class_weights has {len(self.class_weights)} entries for {logits.shape[-1]} classes")
        return tf.constant(self.class_weights, logits.dtype)


def check_reduction(loss: keras.losses.Loss) -> None:
    """Refuses what would not be a mean over all replicas' pixels.

    Raises:
        ValueError: another reduction than Keras's mean.
    """
    if loss.reduction != "sum_over_batch_size":
        raise ValueError(f"reduction must be 'sum_over_batch_size', the mean over pixels, got {loss.reduction!r}")


def one_hot(labels: tf.Tensor, counted: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[B, h, w, K] of the logits' dtype; zeros where a pixel does not count."""
    return tf.one_hot(tf.where(counted, labels, -1), logits.shape[-1], dtype=logits.dtype)


def mean_of_replicas(value: tf.Tensor) -> tf.Tensor:
    """Differentiable mean over replicas; the value itself where there is one, and outside of them."""
    # Outside a replica Keras only asks for shapes.
    return value if replicas() == 1 else mean_over_replicas(value)


def _checked_class_weights(class_weights):
    """One weight per class as floats."""
    if class_weights is None:
        return None
    weights = [float(weight) for weight in class_weights]
    if not weights or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ValueError(f"class_weights must be finite, not negative and not all 0, got {weights}")
    return weights
