"""Cross entropy over the pixels of all replicas that carry a label."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import ClassWeightedLoss


@keras.saving.register_keras_serializable(package="psanet_tf")
class SegmentationLoss(ClassWeightedLoss):
    """Mean softmax cross entropy over the labelled pixels of the global batch.

    On several replicas value and gradient are those of one device with the whole batch, however the labelled pixels
    lie; a batch without any has loss 0. Call arguments, result and errors are as of every `PixelLoss`: integer labels
    [B, h, w] and logits [B, h, w, K] give a float32 scalar.

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

    Raises:
        ValueError: an argument outside its range.

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
        super().__init__(ignore_label, class_weights, name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        if ohem_threshold is not None and not 0 < ohem_threshold <= 1:
            raise ValueError(f"ohem_threshold must lie in (0, 1] or be None, got {ohem_threshold}")
        if not 0 < ohem_min_kept <= 1:
            raise ValueError(f"ohem_min_kept must lie in (0, 1], got {ohem_min_kept}")
        self.label_smoothing = float(label_smoothing)
        self.ohem_threshold = ohem_threshold
        self.ohem_min_kept = float(ohem_min_kept)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "label_smoothing": self.label_smoothing,
            "ohem_threshold": self.ohem_threshold,
            "ohem_min_kept": self.ohem_min_kept,
        }

    def _weighted_losses(self, entropies, weights, logits, valid):
        losses = (1 - self.label_smoothing) * entropies * weights
        if self.label_smoothing:
            losses += self.label_smoothing / logits.shape[-1] * self._sum_over_classes(logits)
        if self.ohem_threshold is None:
            return losses, valid
        return losses, self._hard_pixels(tf.stop_gradient(entropies), valid)

    def _sum_over_classes(self, logits):
        negative_log_probability = -tf.nn.log_softmax(logits)
        if self.class_weights is not None:
            negative_log_probability *= self._class_weight_vector(logits)
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
