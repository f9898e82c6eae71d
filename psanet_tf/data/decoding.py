"""Pictures and labels from files and from the bytes in them, as TensorFlow operations."""

import numpy as np
import tensorflow as tf

from psanet_tf.data.catalog import IGNORE_LABEL, OUT_OF_RANGE
from psanet_tf.data.readers import PNG_KIND, label_kinds
from psanet_tf.data.records import IMAGE_KEY, LABEL_KEY

_RECORD_BUFFER = 1 << 18


def read_record(path, offset):
    """Bytes of the picture and of the labels of one example in a TFRecord file.

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


def decode_picture(encoded):
    """JPEG, PNG or BMP bytes -> uint8 [H, W, 3]; an error of the operation if they are no picture."""
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        # The accurate transform is what other libraries use; TensorFlow's default differs by up to ten grey levels.
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(pixels, (None, None, 3))


class LabelDecoder:
    """Bytes of single-channel PNGs -> the values as stored -> train ids.

    Args:
        info: DatasetInfo.
        table: uint8 [256], from `label_value_table`.
        palette: uint8 [n, 3], the colours of palette PNGs; None if the labels are grey PNGs.
    """

    def __init__(self, info, table, palette=None):
        self.info = info
        known = np.flatnonzero(table != OUT_OF_RANGE)
        shifts = np.unique(table[known] - known.astype(np.uint8))
        self._shift = int(shifts[0]) if len(shifts) == 1 else None
        # A value that stands for "no class" in these files.
        self.ignored_value = int(np.flatnonzero(table == info.ignore_label)[0])
        # Made here, outside of the graph: captured, not copied into it.
        with tf.init_scope():
            self._table = tf.constant(table)
            self._index_of_color = None if palette is None else tf.constant(_index_of_color(palette))

    def values(self, encoded):
        """Scalar string -> uint8 [H, W].

        Raises:
            tf.errors.InvalidArgumentError: no PNG, neither 8-bit grey nor with the palette.
        """
        kind = tf.strings.substr(encoded, PNG_KIND.start, PNG_KIND.stop - PNG_KIND.start)

        def grey():
            with tf.control_dependencies([_assert_in(kind, label_kinds(palette=False))]):
                return tf.io.decode_png(encoded, channels=1)[..., 0]

        if self._index_of_color is None:
            return grey()
        is_palette = tf.reduce_any(tf.equal(kind, tf.constant(label_kinds(palette=True))))
        return tf.cond(is_palette, lambda: self._palette_indices(encoded), grey)

    def train_ids(self, values):
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

    def _palette_indices(self, encoded):
        """TensorFlow decodes palette PNGs to colours; this finds the indices again."""
        colors = tf.cast(tf.io.decode_png(encoded, channels=3), tf.int32)
        return tf.gather(self._index_of_color, (colors[..., 0] * 256 + colors[..., 1]) * 256 + colors[..., 2])


def _index_of_color(palette):
    red, green, blue = np.asarray(palette, int).T
    number = (red * 256 + green) * 256 + blue
    index = np.full(1 << 24, OUT_OF_RANGE, np.uint8)
    # Of equal colours the first one counts: entries that are not used are often all black.
    index[number[::-1]] = np.arange(len(palette))[::-1]
    return index


def _assert_in(kind, kinds):
    return tf.debugging.Assert(tf.reduce_any(tf.equal(kind, tf.constant(kinds))), ["labels must be 8-bit grey PNG"])
