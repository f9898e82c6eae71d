"""The sliding-window protocol as a graph: sizes are tensors, so that a server labels images of any size.

`psanet_tf.evaluation.SlidingWindow` defines the protocol and streams in Python; this is the same arithmetic for
use inside a `tf.function`.
"""

import math

import tensorflow as tf

from psanet_tf.data.normalization import normalize

_BAND_BYTES = 64 * 2**20
OUTPUT_STRIDE = 8


class GraphWindow:
    """Labels one image of any size inside a graph.

    Args:
        network: normalized crops float32 [B, h, w, 3] -> logits float32 [B, h, w, K].
        num_classes: K.
        crop_size: (rows, columns) of the network's input; None if it takes any size of the form 8n + 1, and
            then a resized image is one crop.
        evaluate: `EvaluateSection` (base_size, scales, flip, stride_rate).
    """

    def __init__(self, network, num_classes, crop_size, evaluate):
        self._network = network
        self._num_classes = num_classes
        self._crop_size = crop_size
        self._evaluate = evaluate

    def labels(self, image):
        """The most probable class of every pixel.

        Args:
            image: uint8 [H, W, 3], H and W dynamic.

        Returns:
            uint8 [H, W].
        """
        size = tf.shape(image)[:2]
        scaled = [self._scaled_probabilities(image, scale) for scale in self._evaluate.scales]
        rows_per_band = tf.maximum(1, _BAND_BYTES // (size[1] * self._num_classes * 4))
        count = -(-size[0] // rows_per_band)
        bands = tf.TensorArray(tf.uint8, size=count, infer_shape=False, element_shape=[None, None])

        def add_band(index, bands):
            first = index * rows_per_band
            rows = tf.minimum(rows_per_band, size[0] - first)
            # A sum has the largest entry where the average has it.
            total = tf.add_n([_resize_rows(part, first, rows, size) for part in scaled])
            return index + 1, bands.write(index, tf.cast(tf.argmax(total, -1, tf.int32), tf.uint8))

        _, bands = tf.while_loop(lambda index, _: index < count, add_band, (0, bands), parallel_iterations=1)
        return tf.reshape(bands.concat(), size)

    def _scaled_probabilities(self, image, scale):
        """float32 [h, w, K] of the image resized for one scale."""
        resized = normalize(tf.image.resize(image, _scaled_size(image, self._evaluate.base_size, scale)))
        if self._crop_size is None:
            return self._whole(resized)
        return self._tiled(resized)

    def _whole(self, resized):
        return self._crop_probabilities(pad_to_stride(resized[None]))[: tf.shape(resized)[0], : tf.shape(resized)[1]]

    def _tiled(self, resized):
        height, width = tf.shape(resized)[0], tf.shape(resized)[1]
        crop_height, crop_width = self._crop_size
        below, right = tf.maximum(crop_height - height, 0), tf.maximum(crop_width - width, 0)
        top, left = below // 2, right // 2
        # The mean colour is 0 once normalized.
        padded = tf.pad(resized, [[top, below - top], [left, right - left], [0, 0]])
        row_origins = _origins(height + below, crop_height, self._evaluate.stride_rate)
        column_origins = _origins(width + right, crop_width, self._evaluate.stride_rate)
        sums = tf.zeros([height + below, width + right, self._num_classes])

        def add_row(index, sums):
            origin = row_origins[index]
            strip = self._strip(padded[origin : origin + crop_height], column_origins, width + right)
            end = origin + crop_height
            return index + 1, tf.concat([sums[:origin], sums[origin:end] + strip, sums[end:]], axis=0)

        _, sums = tf.while_loop(
            lambda index, _: index < tf.size(row_origins),
            add_row,
            (0, sums),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, self._num_classes])),
            parallel_iterations=1,
        )
        coverage = (
            _coverage(row_origins, crop_height, height + below)[:, None, None]
            * _coverage(column_origins, crop_width, width + right)[None, :, None]
        )
        return (sums / coverage)[top : top + height, left : left + width]

    def _strip(self, padded, column_origins, width):
        """float32 [crop rows, width, K]: the sum over one row of crops."""
        crop_height, crop_width = self._crop_size

        def add_crop(index, strip):
            origin = column_origins[index]
            crop = tf.reshape(padded[:, origin : origin + crop_width], [1, crop_height, crop_width, 3])
            probabilities = self._crop_probabilities(crop)
            return index + 1, strip + tf.pad(probabilities, [[0, 0], [origin, width - origin - crop_width], [0, 0]])

        _, strip = tf.while_loop(
            lambda index, _: index < tf.size(column_origins),
            add_crop,
            (0, tf.zeros([crop_height, width, self._num_classes])),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([crop_height, None, self._num_classes])),
            parallel_iterations=1,
        )
        return strip

    def _crop_probabilities(self, crop):
        """float32 [h, w, K] for one crop [1, h, w, 3], averaged with its mirror image's if the protocol says so."""
        if not self._evaluate.flip:
            return tf.nn.softmax(self._network(crop))[0]
        both = tf.nn.softmax(self._network(tf.concat([crop, tf.reverse(crop, [2])], axis=0)))
        return (both[0] + tf.reverse(both[1], [1])) / 2


def pad_to_stride(images):
    """[N, H, W, 3] with rows and columns of zeros added at the end, up to sizes of the form 8n + 1, at least 9."""
    paddings = []
    for axis in (1, 2):
        length = tf.shape(images)[axis]
        target = tf.maximum(1, -(-(length - 1) // OUTPUT_STRIDE)) * OUTPUT_STRIDE + 1
        paddings.append([0, target - length])
    return tf.pad(images, [[0, 0], *paddings, [0, 0]])


def _scaled_size(image, base_size, scale):
    """[height, width] with the long side round(scale * base_size), halves to even."""
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    long_side = tf.constant(float(max(1, round(scale * base_size))), tf.float64)
    # In this order: the rounding is that of the evaluation.
    scaled = tf.maximum(tf.round(long_side / tf.reduce_max(size) * size), 1)
    return tf.cast(tf.where(size == tf.reduce_max(size), long_side, scaled), tf.int32)


def _origins(length, crop, stride_rate):
    """Where crops begin along an axis: a fixed distance apart, the last one flush with the end."""
    stride = math.ceil(crop * stride_rate)
    count = -(-(length - crop) // stride) + 1
    return tf.minimum(tf.range(count) * stride, length - crop)


def _coverage(origins, crop, length):
    """float32 [length]: how many crops lie over each position."""
    position = tf.range(length)[:, None]
    inside = (position >= origins[None]) & (position < origins[None] + crop)
    return tf.reduce_sum(tf.cast(inside, tf.float32), axis=1)


def _resize_rows(source, first, rows, size):
    """Rows `first`, ... of the bilinear, half-pixel-centred resize of [h, w, K] to `size`: float32 [rows, W, K]."""
    source_height = tf.shape(source)[0]
    ratio = tf.cast(source_height, tf.float64) / tf.cast(size[0], tf.float64)
    position = (tf.cast(tf.range(first, first + rows), tf.float64) + 0.5) * ratio - 0.5
    above = tf.floor(position)
    weight = tf.cast(position - above, tf.float32)[:, None, None]
    upper = tf.clip_by_value(tf.cast(above, tf.int32), 0, source_height - 1)
    lower = tf.clip_by_value(tf.cast(above, tf.int32) + 1, 0, source_height - 1)
    top = tf.gather(source, upper)
    mixed = top + (tf.gather(source, lower) - top) * weight
    return tf.image.resize(mixed[None], tf.stack([rows, size[1]]))[0]
