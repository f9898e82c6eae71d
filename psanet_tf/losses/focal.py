"""Focal loss: cross entropy in which pixels that are right already count less."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import ClassWeightedLoss


@keras.saving.register_keras_serializable(package="psanet_tf")
class FocalLoss(ClassWeightedLoss):
    """Mean of -(1 - p) ** gamma * log(p) over the labelled pixels of the global batch, p of each pixel's true class.

    The softmax form of Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5; their alpha
    is `class_weights`, over whose sum the mean is taken. With gamma 0 it is `SegmentationLoss`, whose words on
    replicas, call arguments, result and errors hold here too.

    Args:
        gamma: 0 or more; how much less a pixel counts that is right.
        ignore_label: label of pixels that do not count.
        class_weights: one weight per class, or None for 1.
        name: name of the loss.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        ignore_label: int = 255,
        class_weights: Sequence[float] | None = None,
        name: str = "focal_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(ignore_label, class_weights, name=name, **kwargs)
        if not gamma >= 0:
            raise ValueError(f"gamma must be 0 or more, got {gamma}")
        self.gamma = float(gamma)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"gamma": self.gamma}

    def _weighted_losses(self, entropies, weights, logits, valid):
        # 1 - p without cancellation; where p rounds to 1, a power below 1 would have an infinite gradient.
        wrong = tf.maximum(-tf.math.expm1(-entropies), np.finfo(entropies.dtype.as_numpy_dtype).tiny)
        return weights * wrong**self.gamma * entropies, valid
