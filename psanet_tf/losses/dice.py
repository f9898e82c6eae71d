"""Dice loss: the overlap of each class over the whole batch."""

from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import PixelLoss, mean_of_replicas, one_hot


@keras.saving.register_keras_serializable(package="psanet_tf")
class DiceLoss(PixelLoss):
    """Mean over the classes of 1 - 2 sum(p g) / (sum(p) + sum(g)), p the softmax and g the one-hot labels.

    The sums are over the labelled pixels of the global batch, for each class by itself. Classes without a pixel in it
    are left out of the mean; a batch without any labelled pixel has loss 0. This is Dice as semantic segmentation uses
    it, with plain sums as in Sudre et al., "Generalised Dice overlap as a deep learning loss function for highly
    unbalanced segmentations", 2017 (section 2.1, without weights: every class counts equally). Milletari et al.,
    "V-Net", 2016, have the squares of p and g in the denominator, for a single class.

    Dice is no sum over pixels, so that its value for a batch does not follow from those for the replicas' parts: the
    sums of each class are all-reduced, and value and gradient are those of one device with the whole batch.

    Call arguments, result and errors are as of every `PixelLoss`: integer labels [B, h, w] and logits [B, h, w, K] give
    a float32 scalar.

    Args:
        ignore_label: label of pixels that do not count.
        name: name of the loss.

    Example:
        >>> loss = DiceLoss()
        >>> float(loss(tf.constant([[[1, 255]]]), tf.zeros((1, 1, 2, 4))))  # 1 - 2 * 0.25 / (0.25 + 1)
        0.6000000238418579
    """

    def __init__(self, ignore_label: int = 255, name: str = "dice_loss", **kwargs: Any) -> None:
        super().__init__(ignore_label, name=name, **kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels, logits, valid = self._checked(y_true, y_pred)
        truth = one_hot(labels, valid, logits)
        probabilities = tf.nn.softmax(logits) * tf.cast(valid, logits.dtype)[..., None]
        pixels = [0, 1, 2]
        sums = tf.stack([tf.reduce_sum(values, pixels) for values in (probabilities * truth, probabilities, truth)])
        # Means do as well as sums: overlap is a quotient of them.
        overlap, predicted, true = tf.unstack(mean_of_replicas(sums))
        present = tf.cast(true > 0, logits.dtype)
        losses = present * (1 - tf.math.divide_no_nan(2 * overlap, predicted + true))
        mean = tf.math.divide_no_nan(tf.reduce_sum(losses), tf.reduce_sum(present))
        return self._for_every_image(mean, labels, logits)
