"""The paper's sliding window as a graph; `psanet_tf.SlidingWindow` defines it."""

import math
from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.labeler import (
    GraphLabeler,
    Network,
    averaged_crops,
    probabilities,
    resized_rows,
    scaled_size,
)


class GraphWindow(GraphLabeler):
    """The arithmetic of `SlidingWindow`, for use inside a `tf.function`.

    Args:
        network, num_classes, images: see `GraphLabeler`.
        crop_size: (rows, columns) of the network's input.
        base_size, scales, flip, stride_rate: see `SlidingWindow`.
    """

    def __init__(
        self,
        network: Network,
        num_classes: int,
        crop_size: Sequence[int],
        base_size: int,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        stride_rate: float = 2 / 3,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(network, num_classes, images)
        self._crop_size = tuple(crop_size)
        self._base_size = base_size
        self._scales = tuple(scales)
        self._flip = flip
        self._stride_rate = stride_rate

    def _maps(self, image):
        return [self._scaled_probabilities(image, scale) for scale in self._scales]

    def _rows(self, part, first, rows, size):
        return resized_rows(part, first, rows, size)

    def _scaled_probabilities(self, image, scale):
        """float32 [h, w, K] of the image resized for one scale."""
        resized = self._images.normalize(tf.image.resize(image, scaled_size(image, self._base_size, scale)))
        height, width = tf.shape(resized)[0], tf.shape(resized)[1]
        crop_height, crop_width = self._crop_size
        below, right = tf.maximum(crop_height - height, 0), tf.maximum(crop_width - width, 0)
        top, left = below // 2, right // 2
        # The mean colour is 0 once normalized.
        padded = tf.pad(resized, [[top, below - top], [left, right - left], [0, 0]])
        origins = (
            _origins(height + below, crop_height, self._stride_rate),
            _origins(width + right, crop_width, self._stride_rate),
        )
        averages = averaged_crops(
            padded,
            origins,
            self._crop_size,
            self._num_classes,
            lambda crop: probabilities(self._network, crop, self._flip),
        )
        return averages[top : top + height, left : left + width]


def _origins(length, crop, stride_rate):
    """Where crops begin along an axis: a fixed distance apart, the last one flush with the end."""
    stride = math.ceil(crop * stride_rate)
    count = -(-(length - crop) // stride) + 1
    return tf.minimum(tf.range(count) * stride, length - crop)
