"""Images in one piece, as a graph: resized to the paper's scales, or at their own size."""

from collections.abc import Sequence

import tensorflow as tf

from psanet_tf.data.image_format import PHOTOGRAPHS, ImageFormat
from psanet_tf.export.graph.labeler import GraphLabeler, Network, probabilities, resized_rows, scaled_size
from psanet_tf.feature_sizes import OUTPUT_STRIDE


class GraphWhole(GraphLabeler):
    """One pass per scale; at the image's own size the arithmetic of `psanet_tf.WholeImage`.

    Args:
        network, num_classes, images: see `GraphLabeler`; the network takes any size.
        padded: images are padded with the mean colour up to 8n+1 rows and columns.
        base_size: long side, in pixels, at scale 1; None: images are taken as they are, at scale 1 alone.
        scales: factors of `base_size`, over which probabilities are averaged.
        flip: average with the mirror image.
        max_seen_pixels: rows times columns, padding included, of what the network may see; None: any number.
    """

    def __init__(
        self,
        network: Network,
        num_classes: int,
        padded: bool,
        base_size: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        images: ImageFormat = PHOTOGRAPHS,
        max_seen_pixels: int | None = None,
    ) -> None:
        super().__init__(network, num_classes, images)
        if base_size is None and tuple(scales) != (1.0,):
            raise ValueError(f"images at their own size have scale 1 alone, got scales {tuple(scales)}")
        self._padded = padded
        self._base_size = base_size
        self._scales = tuple(scales)
        self._flip = flip
        self._max_seen_pixels = max_seen_pixels

    def _maps(self, image):
        return [self._scaled_probabilities(image, scale) for scale in self._scales]

    def _rows(self, part, first, rows, size):
        return resized_rows(part, first, rows, size)

    def _scaled_probabilities(self, image, scale):
        """float32 [h, w, K] of the image resized for one scale."""
        size = tf.shape(image)[:2]
        if self._base_size is not None:
            size = scaled_size(image, self._base_size, scale)
        limit = self._max_seen_pixels
        with tf.control_dependencies([] if limit is None else [check_seen(size, self._padded, limit)]):
            image = tf.identity(image)
        if self._base_size is not None:
            image = tf.image.resize(image, size)
        return probabilities(self._seen_logits, self._images.normalize(image)[None], self._flip)

    def _seen_logits(self, images):
        """Logits [N, h, w, K]; mirror images are padded on the same sides as the others."""
        if not self._padded:
            return self._network(images)
        return self._network(pad_to_stride(images))[:, : tf.shape(images)[1], : tf.shape(images)[2]]


def pad_to_stride(images: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] with rows and columns of zeros added at the end, up to sizes of the form 8n + 1, at least 9."""
    size = tf.shape(images)[1:3]
    below, right = tf.unstack(padded_size(size) - size)
    return tf.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])


def padded_size(size: tf.Tensor) -> tf.Tensor:
    """int32 [2]: rows and columns of what `pad_to_stride` makes of an image of `size`, int32 [2]."""
    # Of positive numbers: ONNX divides negative ones otherwise.
    return tf.maximum(1, (size + OUTPUT_STRIDE - 2) // OUTPUT_STRIDE) * OUTPUT_STRIDE + 1


def check_seen(size: tf.Tensor, padded: bool, limit: int) -> tf.Operation:
    """Refuses what would take all memory, when run.

    Args:
        size: int32 [2], rows and columns of what the network is to see.
        padded: whether that is padded to sizes of the form 8n + 1.
        limit: rows times columns, padding included.
    """
    seen = padded_size(size) if padded else size
    text = tf.strings.format("{} rows x {} columns", (seen[0], seen[1]))
    how = "padded to " if padded else "seen as "
    message = tf.strings.join(["an image is ", how, text, f"; its network may see {limit} pixels at once"])
    return tf.debugging.Assert(tf.reduce_prod(tf.cast(seen, tf.int64)) <= limit, [message])
