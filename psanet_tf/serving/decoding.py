"""JPEG and PNG strings to images inside a graph; what cannot be decoded is refused with a helpful text."""

import tensorflow as tf

from psanet_tf.data.decoding import decode_image
from psanet_tf.data.graph_headers import is_jpeg, is_png

_PNG_HEADER_BYTES = 26


def decode_checked(data: tf.Tensor, max_pixels: int, name: str | tf.Tensor) -> tf.Tensor:
    """One JPEG or PNG image, decoded after its header was checked; for use inside a `tf.function`.

    Args:
        data: scalar string tensor.
        max_pixels: more than these are refused before anything is decoded.
        name: scalar string tensor or string for error messages, e.g. ``"image_bytes[0]"``.

    Returns:
        uint8 [H, W, 3], RGB, as `psanet_tf.data.pixels` describes.

    Raises:
        tf.errors.InvalidArgumentError: when run, for anything else.
    """
    long_enough = tf.strings.length(data) >= _PNG_HEADER_BYTES
    readable = tf.debugging.Assert(
        (is_jpeg(data) | is_png(data)) & long_enough,
        [tf.strings.join([name, " is no JPEG or PNG image (its first bytes say what it is)"])],
    )
    with tf.control_dependencies([readable]):
        data = tf.identity(data)
    size = tf.cond(is_jpeg(data), lambda: _jpeg_size(data), lambda: _png_size(data))
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    text = tf.strings.format("{} rows x {} columns", (size[0], size[1]))
    small = tf.debugging.Assert(
        (pixels > 0) & (pixels <= max_pixels),
        [tf.strings.join([name, " has ", text, f"; 1 to {max_pixels} pixels are allowed"])],
    )
    with tf.control_dependencies([small]):
        data = tf.identity(data)
    return decode_image(data, name)


def _jpeg_size(data):
    return tf.io.extract_jpeg_shape(data)[:2]


def _png_size(data):
    """(rows, columns) from the header chunk, which comes first: width and height, four bytes each."""
    fields = tf.reshape(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.uint8), [2, 4])
    width_height = tf.reduce_sum(tf.cast(fields, tf.int64) * [2**24, 2**16, 2**8, 1], axis=1)
    # Beyond 31 bits is no PNG; the check on the number of pixels refuses it.
    return tf.cast(tf.reverse(tf.minimum(width_height, 2**31 - 1), [0]), tf.int32)
