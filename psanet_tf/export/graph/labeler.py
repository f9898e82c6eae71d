"""What the protocols have in common as graphs: sizes are tensors, so that a server labels images of any size."""

import abc
from collections.abc import Callable, Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat

_BAND_BYTES = 64 * 2**20

Network = Callable[[tf.Tensor], tf.Tensor]


class GraphLabeler(abc.ABC):
    """Labels one image of any size inside a graph; subclasses say how, as those of `Labeler` do in Python.

    Args:
        network: normalized images float32 [B, h, w, C] -> logits float32 [B, h, w, K].
        num_classes: K.
        images: `ImageFormat`.
    """

    def __init__(self, network: Network, num_classes: int, images: ImageFormat = PHOTOGRAPHS) -> None:
        self._images = images
        self._network = network
        self._num_classes = num_classes

    def labels(self, image: tf.Tensor) -> tf.Tensor:
        """The most probable class of every pixel.

        Args:
            image: [H, W, C] of the format's dtype, H and W dynamic.

        Returns:
            uint8 [H, W].
        """
        size = tf.shape(image)[:2]
        maps = self._maps(image)
        rows_per_band = tf.maximum(1, _BAND_BYTES // (size[1] * self._num_classes * 4))
        count = -(-size[0] // rows_per_band)
        bands = tf.TensorArray(tf.uint8, size=count, infer_shape=False, element_shape=[None, None])

        def add_band(index, bands):
            first = index * rows_per_band
            rows = tf.minimum(rows_per_band, size[0] - first)
            # A sum has the largest entry where the average has it.
            total = tf.add_n([self._rows(part, first, rows, size) for part in maps])
            return index + 1, bands.write(index, tf.cast(tf.argmax(total, -1, tf.int32), tf.uint8))

        _, bands = tf.while_loop(lambda index, _: index < count, add_band, (0, bands), parallel_iterations=1)
        return tf.reshape(bands.concat(), size)

    @abc.abstractmethod
    def _maps(self, image):
        """List of float32 [h, w, K], of any sizes, whose `_rows` are averaged."""

    @abc.abstractmethod
    def _rows(self, part, first, rows, size):
        """Probabilities float32 [rows, W, K] of rows `first`, ... of the image of `size`, from one of the maps."""


def resized_rows(
    source: tf.Tensor, first: tf.Tensor, rows: tf.Tensor, size: tf.Tensor, align_corners: bool = False
) -> tf.Tensor:
    """Some rows of the bilinear resize of `source`, without the others.

    Args:
        source: float32 [h, w, K].
        first: int32, the first of these rows.
        rows: int32, how many.
        size: int32 [2], (H, W) of the whole resized image.
        align_corners: False for half-pixel centres.

    Returns:
        float32 [rows, W, K].
    """
    source_height = tf.shape(source)[0]
    target = tf.cast(tf.range(first, first + rows), tf.float64)
    if align_corners:
        ratio = tf.cast(source_height - 1, tf.float64) / tf.cast(tf.maximum(size[0] - 1, 1), tf.float64)
        position = target * ratio
    else:
        position = (target + 0.5) * (tf.cast(source_height, tf.float64) / tf.cast(size[0], tf.float64)) - 0.5
    above = tf.floor(position)
    weight = tf.cast(position - above, tf.float32)[:, None, None]
    upper = tf.clip_by_value(tf.cast(above, tf.int32), 0, source_height - 1)
    lower = tf.clip_by_value(tf.cast(above, tf.int32) + 1, 0, source_height - 1)
    top = tf.gather(source, upper)
    mixed = top + (tf.gather(source, lower) - top) * weight
    return tf.raw_ops.ResizeBilinear(
        images=mixed[None],
        size=tf.stack([rows, size[1]]),
        align_corners=align_corners,
        half_pixel_centers=not align_corners,
    )[0]


def averaged_crops(
    image: tf.Tensor,
    origins: Sequence[tf.Tensor],
    crop_size: Sequence[int | tf.Tensor],
    depth: int,
    answer: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Answers to the crops of an image, averaged where these overlap; one crop at a time.

    Args:
        image: float32 [h, w, C].
        origins: (rows, columns), int32 vectors: where crops begin; together they cover the image.
        crop_size: (height, width) of a crop.
        depth: K.
        answer: crop [1, height, width, C] -> float32 [height, width, K].

    Returns:
        float32 [h, w, K].
    """
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    row_origins, column_origins = origins
    crop_height, crop_width = crop_size

    def strip(rows):
        """float32 [crop rows, w, K]: the sum over one row of crops."""

        def add_crop(index, total):
            origin = column_origins[index]
            crop = tf.reshape(rows[:, origin : origin + crop_width], [1, crop_height, crop_width, image.shape[-1]])
            return index + 1, total + tf.pad(answer(crop), [[0, 0], [origin, width - origin - crop_width], [0, 0]])

        return _summed(column_origins, add_crop, tf.zeros([crop_height, width, depth]))

    def add_row(index, total):
        origin = row_origins[index]
        end = origin + crop_height
        return index + 1, tf.concat([total[:origin], total[origin:end] + strip(image[origin:end]), total[end:]], axis=0)

    total = _summed(row_origins, add_row, tf.zeros([height, width, depth]))
    coverage = (
        _coverage(row_origins, crop_height, height)[:, None, None]
        * _coverage(column_origins, crop_width, width)[None, :, None]
    )
    return total / coverage


def probabilities(network: Network, image: tf.Tensor, flip: bool) -> tf.Tensor:
    """float32 [h, w, K] for one image [1, h, w, C], averaged with its mirror image's where `flip` says so."""
    if not flip:
        return tf.nn.softmax(network(image))[0]
    both = tf.nn.softmax(network(tf.concat([image, tf.reverse(image, [2])], axis=0)))
    return (both[0] + tf.reverse(both[1], [1])) / 2


def scaled_size(image: tf.Tensor, base_size: int, scale: float) -> tf.Tensor:
    """[height, width] with the long side round(scale * base_size), halves to even."""
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    long_side = tf.constant(float(max(1, round(scale * base_size))), tf.float64)
    # In this order: the rounding is that of the evaluation.
    scaled = tf.maximum(tf.round(long_side / tf.reduce_max(size) * size), 1)
    return tf.cast(tf.where(size == tf.reduce_max(size), long_side, scaled), tf.int32)


def _summed(origins, add, zeros):
    shapes = (tf.TensorShape([]), tf.TensorShape([None, None, zeros.shape[-1]]))
    _, total = tf.while_loop(
        lambda index, _: index < tf.size(origins), add, (0, zeros), shape_invariants=shapes, parallel_iterations=1
    )
    return total


def _coverage(origins, crop, length):
    """float32 [length]: how many crops lie over each position."""
    position = tf.range(length)[:, None]
    inside = (position >= origins[None]) & (position < origins[None] + crop)
    return tf.reduce_sum(tf.cast(inside, tf.float32), axis=1)
