"""As `turning.turned`, in TensorFlow operations."""

import tensorflow as tf

from psanet_tf.data import headers
from psanet_tf.data.graph_headers import called_rarely
from psanet_tf.data.turning import REVERSED


def turned(array: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """[H, W, C] as stored -> as it is to be seen.

    Args:
        array: uint8 or uint16.
        orientation: int32, 1..8, as Exif counts.
    """
    return tf.cond(
        tf.equal(orientation, headers.UPRIGHT), lambda: array, lambda: _TURN[array.dtype](array, orientation)
    )


def _turn(array, orientation):
    array = tf.cond(orientation >= 5, lambda: tf.transpose(array, [1, 0, 2]), lambda: array)
    rows, columns = (tf.gather(list(axis), (orientation - 1) % 4) for axis in zip(*REVERSED, strict=True))
    array = tf.cond(rows, lambda: array[::-1], lambda: array)
    return tf.cond(columns, lambda: array[:, ::-1], lambda: array)


_TURN = {
    dtype: called_rarely(tf.TensorSpec([None, None, None], dtype), tf.TensorSpec([], tf.int32))(_turn)
    for dtype in (tf.uint8, tf.uint16)
}
