"""A sum of losses."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from psanet_tf.keras_api import keras
from psanet_tf.losses.pixels import PixelLoss, check_reduction


@keras.saving.register_keras_serializable(package="psanet_tf")
class WeightedSum(keras.losses.Loss):
    """weights[0] * losses[0] + weights[1] * losses[1] + ...

    Args:
        losses: losses of this package, whose sums Keras scales as it scales each of them.
        weights: one positive number for each.
        name: name of the loss.

    Raises:
        ValueError: none or other losses, another number of weights, or another reduction than Keras's mean.

    Example:
        >>> loss = WeightedSum([SegmentationLoss(), DiceLoss()], [1.0, 0.5])
    """

    def __init__(
        self, losses: Sequence[PixelLoss], weights: Sequence[float], name: str = "weighted_sum", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        check_reduction(self)
        losses, weights = list(losses), [float(weight) for weight in weights]
        if not losses or not all(isinstance(loss, PixelLoss) for loss in losses):
            raise ValueError(f"losses must be losses of psanet_tf.losses, at least one, got {losses}")
        if len(weights) != len(losses) or not all(weight > 0 for weight in weights):
            raise ValueError(f"weights must be {len(losses)} positive numbers, one per loss, got {weights}")
        self.losses = losses
        self.weights = weights

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        # Per pixel, or [B, 1, 1]: what is one number for the batch is added to every pixel, which is right for a mean.
        return sum(weight * loss.call(y_true, y_pred) for weight, loss in zip(self.weights, self.losses, strict=True))

    def get_config(self) -> dict[str, Any]:
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return super().get_config() | {"losses": losses, "weights": self.weights}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightedSum":
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(**(config | {"losses": losses}))
