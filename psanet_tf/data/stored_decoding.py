"""As `stored_values`, in TensorFlow operations: PNG of 8 and 16 bits, plain ``.npy``, and grey JPEG."""

import tensorflow as tf

from psanet_tf.data.graph_headers import is_jpeg, is_png, jpeg_orientation, png_header, starts_with
from psanet_tf.data.graph_turning import turned
from psanet_tf.data.image_format import ImageFormat
from psanet_tf.data.stored_values import NPY_MAGIC, NPY_START, PNG_CHANNELS, npy_pattern

_SHOWN_BYTES = 100


def decode_stored(encoded: tf.Tensor, name: str | tf.Tensor, images: ImageFormat) -> tf.Tensor:
    """Bytes of an image file -> [H, W, C] of the format's dtype, equal to `stored_values.read_stored`.

    Args:
        encoded: scalar string.
        name: string or scalar string, what messages call it.
        images: `ImageFormat` that the file must have.

    Raises:
        tf.errors.InvalidArgumentError: when run, for any other file and for damaged ones.
    """
    cases = [(starts_with(encoded, NPY_MAGIC), lambda: _decode_npy(encoded, name, images))]
    if images.dtype != "float32" and images.channels in PNG_CHANNELS.values():
        cases.append((is_png(encoded), lambda: _decode_png(encoded, name, images)))
    if images.dtype == "uint8" and images.channels == 1:
        cases.append((is_jpeg(encoded), lambda: _decode_jpeg(encoded, name)))
    known = require(tf.reduce_any([condition for condition, _ in cases]), name, f" must be {forms_in_words(images)}")
    with tf.control_dependencies([known]):
        encoded = tf.identity(encoded)
    (_, otherwise), *others = cases
    values = tf.case(others, default=otherwise) if others else otherwise()
    return tf.ensure_shape(values, (None, None, images.channels))


def forms_in_words(images: ImageFormat) -> str:
    """What `decode_stored` takes, e.g. "a 16-bit grey PNG or .npy of uint16 [H, W, 1]"."""
    forms = []
    if images.dtype != "float32" and images.channels in PNG_CHANNELS.values():
        forms.append(f"a PNG of {_bits(images)} bits and {images.channels} channels")
    if images.dtype == "uint8" and images.channels == 1:
        forms.append("a grey JPEG")
    return " or ".join([*forms, f"an .npy file of {images.dtype} [H, W, {images.channels}] in C order"])


def checked_npy_size(encoded: tf.Tensor, name: str | tf.Tensor, images: ImageFormat) -> tf.Tensor:
    """int32 [2], rows and columns that a plain ``.npy`` file says it has.

    Raises:
        tf.errors.InvalidArgumentError: when run, for any other.
    """
    text = tf.strings.substr(encoded, NPY_START, _npy_text_length(encoded))
    pattern = npy_pattern(images)
    is_plain = starts_with(encoded, NPY_MAGIC + b"\1\0") & tf.strings.regex_full_match(text, pattern)
    message = f" must be {forms_in_words(images)}, little-endian, as numpy.save writes it; it says "
    # A message must be text, whatever stands there.
    shown = tf.strings.unicode_transcode(
        tf.strings.substr(text, 0, _SHOWN_BYTES), "UTF-8", "UTF-8", "replace", ord("?")
    )
    with tf.control_dependencies([tf.debugging.Assert(is_plain, [tf.strings.join([name, message, shown])])]):
        sizes = tf.strings.regex_replace(text, pattern, r"\1 \2")
    numbers = tf.strings.to_number(tf.strings.split(sizes), tf.int64)
    # More than 31 bits would be no image: nothing that follows may overflow.
    return tf.ensure_shape(tf.cast(tf.minimum(numbers, 2**31 - 1), tf.int32), [2])


def require(condition: tf.Tensor, name: str | tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(condition, [tf.strings.join([name, message])])


def _decode_npy(encoded, name, images):
    size = checked_npy_size(encoded, name, images)
    start = NPY_START + _npy_text_length(encoded)
    length = tf.cast(tf.strings.length(encoded) - start, tf.int64)
    wanted = tf.reduce_prod(tf.cast(size, tf.int64)) * images.bytes_per_pixel
    whole = require((length == wanted) & (length > 0), name, " is an .npy file that is cut short, or holds no pixels")
    with tf.control_dependencies([whole]):
        numbers = tf.io.decode_raw(tf.strings.substr(encoded, start, -1), images.dtype)
    values = tf.reshape(numbers, [size[0], size[1], images.channels])
    if images.dtype != "float32":
        return values
    finite = require(tf.reduce_all(tf.math.is_finite(values)), name, " holds values that are NaN or infinite")
    with tf.control_dependencies([finite]):
        return tf.identity(values)


def _npy_text_length(encoded):
    length = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, NPY_START - 2, 2), tf.uint8), tf.int32)
    return tf.reduce_sum(length * [1, 256])


def _decode_png(encoded, name, images):
    header = png_header(encoded)
    color_type = next(kind for kind, channels in PNG_CHANNELS.items() if channels == images.channels)
    fits = (header.depth == _bits(images)) & (header.color_type == color_type) & ~header.has_transparency
    what = f" must be a PNG of {_bits(images)} bits and {images.channels} channels, without a transparent colour"
    with tf.control_dependencies([require(fits, name, what)]):
        encoded = tf.identity(encoded)
    return turned(tf.io.decode_png(encoded, channels=0, dtype=images.dtype), header.orientation)


def _decode_jpeg(encoded, name):
    grey = require(tf.equal(tf.io.extract_jpeg_shape(encoded)[2], 1), name, " must be a JPEG of 1 channel")
    with tf.control_dependencies([grey]):
        encoded = tf.identity(encoded)
    return turned(tf.io.decode_jpeg(encoded, channels=1, dct_method="INTEGER_ACCURATE"), jpeg_orientation(encoded))


def _bits(images):
    return 8 if images.dtype == "uint8" else 16
