"""Cross entropy over the pixels of all replicas that carry a label."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import PixelLoss, checked_class_weights, class_weight_vector, mean_of_replicas


@keras.saving.register_keras_serializable(package="psanet_tf")
class SegmentationLoss(PixelLoss):
    """Mean softmax cross entropy over the labelled pixels of the global batch.

    The mean is over the labelled pixels of *all* replicas, so that two replicas with unequally many
    ignored pixels give the gradient of one device with the whole batch. Per-pixel values are divided by
    the all-reduced mean weight of a pixel; Keras's `sum_over_batch_size` reduction then divides by the
    local number of pixels and by the number of replicas, and the optimizer sums over replicas. All replicas
    must hold equally many pixels. A batch without any labelled pixel has loss 0.

    Args:
        ignore_label: label of pixels that do not count.
        class_weights: one weight per class, or None for 1. The mean is weighted: the sum of
            weighted losses over the sum of weights, as in `torch.nn.CrossEntropyLoss`.
        label_smoothing: epsilon in [0, 1): the target is 1 - epsilon for the true class plus epsilon / K
            for each of the K classes.
        ohem_threshold: online hard example mining: only pixels whose true class has a lower probability
            than this count. None turns it off. The choice is made within each image, so that it does
            not depend on how a batch is split over replicas.
        ohem_min_kept: fraction of each image's labelled pixels that counts at least (the hardest).
        name: name of the loss.

    Call arguments:
        y_true: integer labels [B, h, w] of any dtype.
        y_pred: logits [B, h, w, K].

    Returns:
        Scalar float32. Called through Keras inside a replica, it is scaled as Keras scales any loss.

    Raises:
        ValueError: an argument outside its range, or labels and logits of different sizes.

    Example:
        >>> loss = SegmentationLoss()
        >>> float(loss(tf.constant([[[1, 255]]]), tf.zeros((1, 1, 2, 4))))  # log 4
        1.3862943649291992
    """

    def __init__(
        self,
        ignore_label: int = 255,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ohem_threshold: float | None = None,
        ohem_min_kept: float = 0.0625,
        name: str = "segmentation_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_label, name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"ohem_threshold must lie in (0, 1] or be None, got {ohem_threshold}")
        if not 0 < ohem_min_kept <= 1:
            raise ValueError(f"ohem_min_kept must lie in (0, 1], got {ohem_min_kept}")
        self.class_weights = checked_class_weights(class_weights)
        self.label_smoothing = float(label_smoothing)
        self.ohem_threshold = ohem_threshold
        self.ohem_min_kept = float(ohem_min_kept)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels, logits, valid = self._checked(y_true, y_pred)
        labels = tf.where(valid, labels, 0)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        counted = valid if self.ohem_threshold is None else self._hard_pixels(tf.stop_gradient(values), valid)
        weights = tf.cast(counted, values.dtype)
        class_weights = self._weights_of(labels, logits)
        losses = (1 - self.label_smoothing) * values * class_weights
        if self.label_smoothing:
            losses += self.label_smoothing / logits.shape[-1] * self._sum_over_classes(logits)
        losses *= weights
        weights *= class_weights
        return tf.math.divide_no_nan(losses, mean_of_replicas(tf.reduce_mean(weights)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
            "ohem_threshold": self.ohem_threshold,
            "ohem_min_kept": self.ohem_min_kept,
        }

    def _weights_of(self, labels, logits):
        if self.class_weights is None:
            return tf.ones((), logits.dtype)
        return tf.gather(class_weight_vector(self.class_weights, logits), labels)

    def _sum_over_classes(self, logits):
        negative_log_probability = -tf.nn.log_softmax(logits)
        if self.class_weights is not None:
            negative_log_probability *= tf.constant(self.class_weights, logits.dtype)
        return tf.reduce_sum(negative_log_probability, axis=-1)

    def _hard_pixels(self, values, valid):
        """Labelled pixels below the probability threshold, and each image's hardest ones. [B, h, w] bool."""
        pixels = tf.reduce_prod(tf.shape(values)[1:])
        flat = tf.reshape(tf.where(valid, values, -1.0), [-1, pixels])
        hardest_first = tf.sort(flat, axis=-1, direction="DESCENDING")
        labelled = tf.reduce_sum(tf.cast(valid, values.dtype), axis=[1, 2])
        kept = tf.cast(tf.math.ceil(labelled * self.ohem_min_kept), tf.int32)
        last_kept = tf.gather(hardest_first, tf.maximum(kept - 1, 0), batch_dims=1)[:, None, None]
        hard = (values > -math.log(self.ohem_threshold)) | (values >= last_kept)
        return hard & valid
