"""What is subtracted from and divided out of pixel values; for photographs statistics of ImageNet, RGB, 0..255.

Which statistics the images of a dataset or network get, `image_format` says.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

_Image = TypeVar("_Image", np.ndarray, "tf.Tensor")

MEAN = np.array([0.485 * 255, 0.456 * 255, 0.406 * 255], np.float32)
STD = np.array([0.229 * 255, 0.224 * 255, 0.225 * 255], np.float32)


def normalize(image: _Image, mean: np.ndarray = MEAN, std: np.ndarray = STD) -> _Image:
    """``(image - mean) / std`` per channel.

    Args:
        image: integers or float [..., H, W, C], in units of the stored values (RGB, 0..255, by default); a NumPy array
            or a tensor.
        mean, std: float32 [C].

    Returns:
        float32 of the same shape and kind; the mean colour becomes 0.
    """
    if isinstance(image, np.ndarray):
        return (image.astype(np.float32) - mean) / std
    import tensorflow as tf

    from psanet_tf.data.channels import per_channel

    return per_channel(tf.divide, per_channel(tf.subtract, tf.cast(image, tf.float32), mean), std)
