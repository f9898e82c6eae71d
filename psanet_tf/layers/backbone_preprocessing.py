"""From images as this package normalizes them to images as a backbone was trained on them."""

from typing import Any

import numpy as np
import tensorflow as tf

from psanet_tf.backbone_families import PREPROCESSING
from psanet_tf.keras_api import keras
from psanet_tf.layers.arguments import checked_choice

# ImageNet's statistics of red, green and blue, 0 to 255: what normalized images had subtracted and divided out.
_MEAN = 255 * np.array([0.485, 0.456, 0.406])
_STD = 255 * np.array([0.229, 0.224, 0.225])
# Per kind: what is subtracted from red, green and blue of 0 to 255, and what they are divided by then.
_WANTED = {
    "caffe": (np.array([123.68, 116.779, 103.939]), np.ones(3)),
    "tf": (np.full(3, 127.5), np.full(3, 127.5)),
    "tf128": (np.full(3, 128.0), np.full(3, 128.0)),
    "torch": (_MEAN, _STD),
    "unit": (np.zeros(3), np.full(3, 255.0)),
    "raw": (np.zeros(3), np.ones(3)),
}


@keras.saving.register_keras_serializable("psanet_tf")
class BackbonePreprocessing(keras.layers.Layer):
    """Brings normalized images into the range and order in which a backbone saw ImageNet.

    Part of the network, so that whatever feeds it (training, prediction, evaluation, an exported model) does the same
    for every backbone: subtract a mean and divide by a deviation per channel. For RGB images and ImageNet's statistics
    the layer then gives what keras.applications' ``preprocess_input`` makes of the pixels. With other channels, or the
    statistics of other data, what is average there becomes what was average in ImageNet, and one deviation one
    deviation: the mean of the three colours' factors for images of another number of channels.

    Args:
        kind: key of `psanet_tf.backbone_families.PREPROCESSING`.

    Call arguments:
        inputs: [N, H, W, C], normalized; with C = 3 red, green, blue.

    Returns:
        Tensor like `inputs`, in the layer's compute dtype.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(self, kind: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = checked_choice("kind", kind, tuple(PREPROCESSING))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        subtracted, divisor = _WANTED[self.kind]
        factor, offset = _STD / divisor, (_MEAN - subtracted) / divisor
        if inputs.shape[-1] != 3:
            factor, offset = factor.mean(), offset.mean()
        elif self.kind == "caffe":
            inputs, factor, offset = tf.reverse(inputs, [-1]), factor[::-1], offset[::-1]
        if np.all(factor == 1) and np.all(offset == 0):
            return inputs
        return inputs * tf.constant(factor, inputs.dtype) + tf.constant(offset, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}
