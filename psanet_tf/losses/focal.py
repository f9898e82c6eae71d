"""Focal loss: cross entropy in which pixels that are right already count less."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import PixelLoss, checked_class_weights, class_weight_vector, mean_of_replicas


@keras.saving.register_keras_serializable(package="psanet_tf")
class FocalLoss(PixelLoss):
    """Mean of -(1 - p) ** gamma * log(p) over the labelled pixels of the global batch, p of each pixel's true class.

    The softmax form of Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5; their alpha
    is `class_weights`, over whose sum the mean is taken. With gamma 0 it is `SegmentationLoss`, whose words on
    replicas hold here too.

    Args:
        gamma: 0 or more; how much less a pixel counts that is right.
        ignore_label: label of pixels that do not count.
        class_weights: one weight per class, or None for 1.
        name: name of the loss.

    Call arguments:
        y_true: integer labels [B, h, w] of any dtype.
        y_pred: logits [B, h, w, K].

    Returns:
        Scalar float32. Called through Keras inside a replica, it is scaled as Keras scales any loss.

    Raises:
        ValueError: an argument outside its range, or labels and logits of different sizes.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        ignore_label: int = 255,
        class_weights: Sequence[float] | None = None,
        name: str = "focal_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_label, name=name, **kwargs)
        if not gamma >= 0:
            raise ValueError(f"gamma must be 0 or more, got {gamma}")
        self.gamma = float(gamma)
        self.class_weights = checked_class_weights(class_weights)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        labels, logits, valid = self._checked(y_true, y_pred)
        labels = tf.where(valid, labels, 0)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        weights = tf.cast(valid, values.dtype)
        if self.class_weights is not None:
            weights *= tf.gather(class_weight_vector(self.class_weights, logits), labels)
        # 1 - p without cancellation; where p rounds to 1, a power below 1 would have an infinite gradient.
        wrong = tf.maximum(-tf.math.expm1(-values), np.finfo(values.dtype.as_numpy_dtype).tiny)
        losses = weights * wrong**self.gamma * values
        return tf.math.divide_no_nan(losses, mean_of_replicas(tf.reduce_mean(weights)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"gamma": self.gamma, "class_weights": self.class_weights}
