"""MMSegmentation's prediction as a graph; `MMSegProtocol` defines it."""

from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.labeler import GraphLabeler, Network, averaged_crops, resized_rows


class GraphMMSeg(GraphLabeler):
    """The arithmetic of `MMSegProtocol`, for use inside a `tf.function`.

    Args:
        network, num_classes, images: see `GraphLabeler`; the network takes any size.
        scale, align_corners, crop_size, stride, scales, flip: see `MMSegProtocol`.
    """

    def __init__(
        self,
        network: Network,
        num_classes: int,
        scale: Sequence[int],
        align_corners: bool = False,
        crop_size: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        images: ImageFormat = PHOTOGRAPHS,
    ) -> None:
        super().__init__(network, num_classes, images)
        self._scale = tuple(scale)
        self._align_corners = align_corners
        self._crop_size = crop_size
        self._stride = stride
        self._scales = tuple(scales)
        self._flip = flip

    def _maps(self, image):
        """Logits float32 [h, w, K] for every factor, and for its mirror image."""
        maps = []
        for factor in self._scales:
            size = fitted_size(tf.shape(image)[:2], [int(side * factor) for side in self._scale])
            resized = tf.image.resize(image, size)
            resized = self._images.normalize(resized if image.dtype == tf.float32 else tf.round(resized))
            maps.append(self._seen_logits(resized))
            if self._flip:
                maps.append(tf.reverse(self._seen_logits(tf.reverse(resized, [1])), [1]))
        return maps

    def _rows(self, part, first, rows, size):
        return tf.nn.softmax(resized_rows(part, first, rows, size, self._align_corners))

    def _seen_logits(self, image):
        """float32 [h, w, K] for a normalized image [h, w, C]."""
        if self._crop_size is None:
            return self._network(image[None])[0]
        size = tf.unstack(tf.shape(image)[:2])
        origins = [_origins(*along) for along in zip(size, self._crop_size, self._stride, strict=True)]
        crop_size = [tf.minimum(*lengths) for lengths in zip(size, self._crop_size, strict=True)]
        return averaged_crops(image, origins, crop_size, self._num_classes, lambda crop: self._network(crop)[0])


def fitted_size(size: tf.Tensor, scale: Sequence[int]) -> tf.Tensor:
    """[height, width], int32, of an image of `size` (int32 [2]) that is fitted into `scale` (long, short side).

    The same numbers as `psanet_tf.inference.mmseg_protocol.fitted_size`: this is its arithmetic, in float64 too.
    """
    size = tf.cast(size, tf.float64)
    longest, shortest = (tf.constant(float(side), tf.float64) for side in (max(scale), min(scale)))
    factor = tf.minimum(longest / tf.reduce_max(size), shortest / tf.reduce_min(size))
    return tf.maximum(tf.cast(size * factor + 0.5, tf.int32), 1)


def _origins(length, crop, stride):
    """Where crops begin along an axis, the last one flush with the end."""
    count = tf.maximum(length - crop + stride - 1, 0) // stride + 1
    return tf.maximum(tf.minimum(tf.range(count) * stride, length - crop), 0)
