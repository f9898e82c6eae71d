"""What a request's image files say in their headers, looked at inside a graph before any of them is decoded."""

import tensorflow as tf

from psanet_tf.data.graph_headers import is_jpeg, is_png, starts_with
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.stored_decoding import checked_npy_size, forms_in_words
from psanet_tf.data.stored_values import NPY_MAGIC

# Of a PNG's header and the name of the next chunk, which is looked at; no image is as short.
_LEAST_BYTES = 41


def check_request(
    image_bytes: tf.Tensor, max_images: int, max_pixels: int, images: ImageFormat = PHOTOGRAPHS
) -> tf.Tensor:
    """The image files of a request, after all of their headers were looked at; none is decoded before.

    Args:
        image_bytes: string [B], JPEG or PNG for photographs, for others what `decode_stored` takes; in messages they
            are called ``image_bytes[0]`` and so on.
        max_images: the largest B.
        max_pixels: of all images together.
        images: `ImageFormat`.

    Returns:
        `image_bytes`.

    Raises:
        tf.errors.InvalidArgumentError: when run, for too many images, too many pixels, or what is no such file by its
            header.
    """
    count = tf.size(image_bytes)
    message = f"image_bytes has {{}} images, a request may have {max_images}: send them in several requests"
    few = tf.debugging.Assert(count <= max_images, [tf.strings.format(message, count)])
    with tf.control_dependencies([few]):
        image_bytes = tf.identity(image_bytes)

    def pixels(index):
        size = _checked_size(image_bytes[index], max_pixels, tf.strings.format("image_bytes[{}]", index), images)
        return tf.reduce_prod(tf.cast(size, tf.int64))

    spec = tf.TensorSpec([], tf.int64)
    total = tf.reduce_sum(tf.map_fn(pixels, tf.range(count), fn_output_signature=spec, parallel_iterations=1))
    message = f"image_bytes have {{}} pixels together, a request may have {max_pixels}: send them in several requests"
    small = tf.debugging.Assert(total <= max_pixels, [tf.strings.format(message, total)])
    with tf.control_dependencies([small]):
        return tf.identity(image_bytes)


def _checked_size(data, max_pixels, name, images):
    """int32 [2], rows and columns that a file's header says; errors as of `check_request`."""
    known, message = is_jpeg(data) | is_png(data), " is no JPEG or PNG image (its first bytes say what it is)"
    if not images.is_photograph:
        known |= starts_with(data, NPY_MAGIC)
        message = f" must be {forms_in_words(images)}"
    readable = tf.debugging.Assert(
        known & (tf.strings.length(data) >= _LEAST_BYTES), [tf.strings.join([name, message])]
    )
    with tf.control_dependencies([readable]):
        data = tf.identity(data)
    size = tf.cond(is_jpeg(data), lambda: _jpeg_size(data), lambda: _other_size(data, name, images))
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    text = tf.strings.format("{} rows x {} columns", (size[0], size[1]))
    small = tf.debugging.Assert(
        (pixels > 0) & (pixels <= max_pixels),
        [tf.strings.join([name, " has ", text, f"; 1 to {max_pixels} pixels are allowed"])],
    )
    with tf.control_dependencies([small]):
        return tf.identity(size)


def _jpeg_size(data):
    return tf.io.extract_jpeg_shape(data)[:2]


def _other_size(data, name, images):
    if images.is_photograph:
        return _png_size(data)
    return tf.cond(is_png(data), lambda: _png_size(data), lambda: checked_npy_size(data, name, images))


def _png_size(data):
    """(rows, columns) from the header chunk, which comes first: width and height, four bytes each."""
    fields = tf.reshape(tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.uint8), [2, 4])
    width_height = tf.reduce_sum(tf.cast(fields, tf.int64) * [2**24, 2**16, 2**8, 1], axis=1)
    # Beyond 31 bits is no PNG; the check on the number of pixels refuses it.
    return tf.cast(tf.reverse(tf.minimum(width_height, 2**31 - 1), [0]), tf.int32)
