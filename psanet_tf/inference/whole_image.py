"""An image in one pass at its own size, without the sliding window."""

import numpy as np
import tensorflow as tf

from psanet_tf.data.normalization import normalize
from psanet_tf.feature_sizes import OUTPUT_STRIDE, feature_size, shrunk_size
from psanet_tf.inference.sliding_window import checked_image
from psanet_tf.models import PSANet


class WholeImage:
    """Labels images of any size in one pass, padded with the mean colour up to 8n+1 rows and columns.

    Faster than `SlidingWindow` and not the protocol of the published scores: the network sees sizes that it was not
    trained on, and memory grows with the image.

    Args:
        predict: maps normalized images, float32 [1, 8m+1, 8n+1, 3], to logits of that size.
        num_classes: K.
    """

    def __init__(self, predict, num_classes):
        self.predict = predict
        self.num_classes = num_classes

    def __call__(self, image):
        """Probabilities, float32 NumPy array [H, W, K], of a uint8 RGB image [H, W, 3]."""
        return tf.nn.softmax(self._logits(image)).numpy()

    def labels(self, image):
        """The most probable class of every pixel, uint8 NumPy array [H, W]."""
        return tf.argmax(self._logits(image), -1, tf.int32).numpy().astype(np.uint8)

    def _logits(self, image):
        image = checked_image(image)
        height, width = image.shape[:2]
        padded_size = [padded_length(length) for length in (height, width)]
        # The mean colour is 0 once normalized.
        padding = [[0, padded_size[0] - height], [0, padded_size[1] - width], [0, 0]]
        logits = tf.convert_to_tensor(self.predict(tf.pad(normalize(image), padding)[None]))
        expected = (1, *padded_size, self.num_classes)
        if tuple(logits.shape) != expected:
            raise ValueError(f"predict must give logits of shape {expected}, got {tuple(logits.shape)}")
        return tf.cast(logits[0, :height, :width], tf.float32)


def padded_length(length):
    """The smallest 8n+1, at least 9, that is not below `length`."""
    return max(9, -(-(length - 1) // OUTPUT_STRIDE) * OUTPUT_STRIDE + 1)


def any_size(model):
    """The same network, with its weights, for images of any size.

    Args:
        model: `PSANet`.

    Returns:
        `PSANet` with input shape [None, None, 3]: `model` itself, or a copy whose over-complete mask has the size that
        `model` was trained with; offsets beyond it weigh 0 before the softmax.

    Raises:
        ValueError: the attention is compact, which ties the network to one size.
    """
    config = model.get_config()
    height, width = config["input_shape"][:2]
    if height is None and width is None:
        return model
    if config["use_psa"]:
        if config["compact"]:
            raise ValueError(
                "a network with compact attention works only at the size it was built for, "
                f"{height}x{width}; label images with the sliding window"
            )
        if config["mask_size"] is None:
            shrunk = shrunk_size(feature_size((height, width)), config["shrink_factor"], config["variant"])
            config["mask_size"] = [2 * length - 1 for length in shrunk]
    copy = PSANet.from_config({**config, "input_shape": (None, None, 3)})
    copy.set_weights(model.get_weights())
    return copy
