"""Images and labels from the bytes of files, in TensorFlow operations: as `pixels` describes, or refused."""

import zlib

import numpy as np
import tensorflow as tf

from psanet_tf.data import headers
from psanet_tf.data.catalog import IGNORE_LABEL, OUT_OF_RANGE, DatasetInfo
from psanet_tf.data.graph_headers import called_rarely, has_pixels_first, is_jpeg, is_png, jpeg_orientation, png_header
from psanet_tf.data.graph_turning import turned
from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.data.label_rules import LabelRule
from psanet_tf.data.records import IMAGE_KEY, LABEL_KEY
from psanet_tf.data.stored_decoding import decode_stored, require

_RECORD_BUFFER = 1 << 18
_CMYK_COMPONENTS = 4
_STRING = tf.TensorSpec([], tf.string)


def read_record(path: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Bytes of the image and of the labels of one example in a TFRecord file.

    Args:
        path: scalar string.
        offset: scalar int64, byte at which the record starts.
    """
    # `tf.data.TFRecordDataset` has the offset in its operation, but not among its arguments.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_RECORD_BUFFER, byte_offsets=[offset]
    )
    dataset = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    features = tf.io.parse_single_example(
        dataset.take(1).get_single_element(),
        {key: tf.io.FixedLenFeature([], tf.string) for key in (IMAGE_KEY, LABEL_KEY)},
    )
    return features[IMAGE_KEY], features[LABEL_KEY]


def decode_image(
    encoded: tf.Tensor, name: str | tf.Tensor = "the image", images: ImageFormat = PHOTOGRAPHS
) -> tf.Tensor:
    """Bytes of a file -> [H, W, C] of the format's dtype, equal to `pixels.decode_image` in every pixel.

    Args:
        encoded: scalar string; a JPEG or PNG file for photographs, for others what `decode_stored` takes.
        name: string or scalar string, what messages call it.
        images: `ImageFormat`.

    Raises:
        tf.errors.InvalidArgumentError: when run, for any other file, for CMYK and for damaged ones.
    """
    return _decode_image(encoded, name) if images.is_photograph else decode_stored(encoded, name, images)


# A function of its own, as `label_values`: traced once, not for each place that it is called at.
@tf.function(input_signature=[_STRING, _STRING], autograph=False)
def _decode_image(encoded, name):
    known = require(
        is_jpeg(encoded) | is_png(encoded), name, " is no JPEG or PNG image (its first bytes say what it is)"
    )
    with tf.control_dependencies([known]):
        encoded = tf.identity(encoded)
    pixels, orientation = tf.cond(
        is_jpeg(encoded), lambda: _decode_jpeg(encoded, name), lambda: _decode_png(encoded, name)
    )
    return tf.ensure_shape(turned(pixels, orientation), (None, None, 3))


def _decode_jpeg(encoded, name):
    components = tf.io.extract_jpeg_shape(encoded)[2]
    message = " is a CMYK JPEG, which differs from decoder to decoder: save it as RGB"
    with tf.control_dependencies([require(components != _CMYK_COMPONENTS, name, message)]):
        # The accurate transform is what other libraries use; TensorFlow's default differs by up to ten grey levels.
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return pixels, jpeg_orientation(encoded)


@called_rarely(_STRING, _STRING)
def _decode_png(encoded, name):
    header = png_header(encoded)
    message = " is a 16-bit PNG with a transparent colour: save it as 8-bit RGB, or with an alpha channel"
    with tf.control_dependencies([require((header.depth < 16) | ~header.has_transparency, name, message)]):
        encoded = tf.identity(encoded)
    has_alpha = tf.equal(header.color_type, headers.GREY_ALPHA) | tf.equal(header.color_type, headers.RGB_ALPHA)
    pixels = tf.cond(
        # Palettes of few bits without tRNS get a wrong alpha channel from the operation.
        has_alpha | header.has_transparency,
        lambda: _on_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )
    return pixels, header.orientation


def _on_white(pixels):
    pixels = tf.cast(pixels, tf.int32)
    color, alpha = pixels[..., :3], pixels[..., 3:]
    return tf.cast((color * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


@tf.function(input_signature=[_STRING], autograph=False)
def label_values(encoded: tf.Tensor) -> tf.Tensor:
    """Scalar string -> uint8 [H, W], equal to `pixels.decode_label`.

    Raises:
        tf.errors.InvalidArgumentError: no grey PNG of 8 bits, or of 16 with values up to 255, and no palette PNG.
    """
    with tf.control_dependencies([require(is_png(encoded), "labels", " must be PNG")]):
        encoded = tf.identity(encoded)
    kind = tf.strings.substr(encoded, headers.PNG_KIND.start, 2)
    # Most files are this; all that could be in front of the pixels takes as long to look at as a tenth of the decoding.
    usual = (kind == bytes([8, headers.GREY])) & has_pixels_first(encoded)
    return tf.cond(usual, lambda: tf.io.decode_png(encoded, channels=1)[..., 0], lambda: _unusual_label_values(encoded))


@called_rarely(_STRING)
def _unusual_label_values(encoded):
    header = png_header(encoded)
    values = tf.switch_case(
        tf.where(tf.equal(header.color_type, headers.PALETTE), 0, tf.where(header.depth > 8, 2, 1)),
        [
            lambda: _palette_indices(encoded, header),
            lambda: tf.io.decode_png(encoded, channels=1),
            lambda: _small_values(encoded),
        ],
    )
    known = tf.equal(header.color_type, headers.PALETTE) | (
        tf.equal(header.color_type, headers.GREY) & (header.depth >= 8)
    )
    with tf.control_dependencies([require(known, "labels", " must be an 8-bit grey or a palette PNG")]):
        return turned(values, header.orientation)[..., 0]


@tf.function(input_signature=[_STRING], autograph=False)
def label_color_codes(encoded: tf.Tensor) -> tf.Tensor:
    """Scalar string -> int32 [H, W], equal to `pixels.decode_label_colors`.

    Raises:
        tf.errors.InvalidArgumentError: no PNG of up to 8 bits, or one with transparent pixels.
    """
    with tf.control_dependencies([require(is_png(encoded), "labels", " must be PNG")]):
        header = png_header(encoded)
    few_grey_levels = tf.equal(header.color_type, headers.GREY) & (header.depth < 8) & header.has_transparency
    plain = require((header.depth <= 8) & ~few_grey_levels, "labels", " must be an opaque PNG of 8 bits")
    with tf.control_dependencies([plain]):
        encoded = tf.identity(encoded)
    has_alpha = tf.equal(header.color_type, headers.GREY_ALPHA) | tf.equal(header.color_type, headers.RGB_ALPHA)

    def opaque():
        pixels = tf.io.decode_png(encoded, channels=4)
        with tf.control_dependencies(
            [require(tf.reduce_all(tf.equal(pixels[..., 3], 255)), "labels", " have transparent pixels")]
        ):
            return tf.identity(pixels[..., :3])

    colors = tf.cond(has_alpha | header.has_transparency, opaque, lambda: tf.io.decode_png(encoded, channels=3))
    colors = tf.cast(turned(colors, header.orientation), tf.int32)
    return colors[..., 0] * 65536 + colors[..., 1] * 256 + colors[..., 2]


class LabelReader:
    """Bytes of label files -> values that `LabelTable` takes.

    Args:
        rule: `LabelRule` of the files; None where they hold train ids.
    """

    def __init__(self, rule: LabelRule | None) -> None:
        self._table = None
        if rule is not None and rule.colors:
            # Made here, outside of the graph: captured, not copied into it.
            with tf.init_scope():
                self._table = tf.constant(rule.color_table())

    def values(self, encoded: tf.Tensor) -> tf.Tensor:
        """Scalar string -> uint8 [H, W]: values as stored; of files whose colours are read train ids, `OUT_OF_RANGE`
        where a colour has no class.

        Raises:
            tf.errors.InvalidArgumentError: another form of file; see `label_values` and `label_color_codes`.
        """
        if self._table is None:
            return label_values(encoded)
        return tf.gather(self._table, label_color_codes(encoded))


class LabelTable:
    """Values of label files -> train ids.

    Args:
        info: DatasetInfo.
        table: uint8 [256], from `label_value_table`.
    """

    def __init__(self, info: DatasetInfo, table: np.ndarray) -> None:
        self.info = info
        ignored = np.flatnonzero(table == info.ignore_label)
        # What augmentation writes where a turned image has no pixels: where no value means "no class", one that no file
        # may hold.
        self._stands_in = not len(ignored)
        self.ignored_value = int(np.flatnonzero(table == OUT_OF_RANGE)[-1] if self._stands_in else ignored[0])
        if self._stands_in:
            table = table.copy()
            table[self.ignored_value] = info.ignore_label
        self.table = table
        known = np.flatnonzero(table != OUT_OF_RANGE)
        shifts = np.unique(table[known] - known.astype(np.uint8))
        self._shift = int(shifts[0]) if len(shifts) == 1 else None
        # Made here, outside of the graph: captured, not copied into it.
        with tf.init_scope():
            self._table = tf.constant(table)

    def stored(self, values: tf.Tensor) -> tf.Tensor:
        """Values of a whole file as they are.

        Raises:
            tf.errors.InvalidArgumentError: `ignored_value` is among them, although the table has no class for it; after
                augmentation nobody could tell. Other such values `train_ids` refuses.
        """
        if not self._stands_in:
            return values
        wrong = tf.reduce_any(tf.equal(values, self.ignored_value))
        with tf.control_dependencies([tf.debugging.Assert(~wrong, ["label value out of range"])]):
            return tf.identity(values)

    def train_ids(self, values: tf.Tensor) -> tf.Tensor:
        """uint8 of any shape -> uint8 of the same.

        Raises:
            tf.errors.InvalidArgumentError: a value that the table says is out of range.
        """
        if self._shift is not None:
            # Ids are the values, or one less (0 becomes 255): ten times as fast as a look-up.
            train_ids = values + tf.constant(self._shift, tf.uint8)
            wrong = (train_ids >= self.info.num_classes) & (train_ids != IGNORE_LABEL)
        else:
            train_ids = tf.gather(self._table, tf.cast(values, tf.int32))
            wrong = tf.equal(train_ids, OUT_OF_RANGE)
        with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(wrong), ["label value out of range"])]):
            return tf.identity(train_ids)


def _palette_indices(encoded, header):
    """uint8 [H, W, 1]. TensorFlow gives palettes' colours only, so the file is made one of grey levels.

    Indices and grey levels are stored alike. What differs is the colour type in the header chunk, and with it the
    chunk's checksum: as a checksum (CRC) is linear, by a constant.
    """
    color_type, checksum = headers.PNG_KIND.stop - 1, headers.PNG_KIND.stop + 3
    old = tf.io.decode_raw(tf.strings.substr(encoded, checksum, 4), tf.uint8)
    new = tf.cast(tf.bitwise.bitwise_xor(old, tf.constant(list(_PALETTE_TO_GREY), tf.uint8)), tf.int32)
    parts = [
        tf.strings.substr(encoded, 0, color_type),
        bytes([headers.GREY]),
        tf.strings.substr(encoded, color_type + 1, checksum - color_type - 1),
        tf.strings.reduce_join(tf.gather([bytes([value]) for value in range(256)], new)),
        # No palette: the operation would warn of it, for every file.
        tf.strings.substr(encoded, header.end, tf.cast(tf.strings.length(encoded), tf.int64) - header.end),
    ]
    levels = tf.io.decode_png(tf.strings.join(parts), channels=1)

    def unscaled():
        return levels // tf.cast(255 // (tf.bitwise.left_shift(1, header.depth) - 1), tf.uint8)

    # Grey of fewer than 8 bits is scaled to 0..255.
    return tf.cond(header.depth < 8, unscaled, lambda: levels)


def _small_values(encoded):
    """uint8 [H, W, 1] of a 16-bit PNG."""
    values = tf.cast(tf.io.decode_png(encoded, channels=1, dtype=tf.uint16), tf.int32)
    with tf.control_dependencies([require(tf.reduce_max(values) <= 255, "labels", " have values above 255")]):
        return tf.cast(values, tf.uint8)


def _header_checksum(color_type):
    return zlib.crc32(b"IHDR" + bytes(9) + bytes([color_type]) + bytes(3))


_PALETTE_TO_GREY = (_header_checksum(headers.PALETTE) ^ _header_checksum(headers.GREY)).to_bytes(4, "big")
